import sys

from stanflow.cli import installation


def test_all_that_is_required_is_found():
    findings = {finding.name: finding for finding in installation.examine()}
    assert all(finding.ok for finding in findings.values() if finding.required)
    assert findings["embedded engine"].detail.endswith("with the constants that Stan drops")


def test_what_is_required_and_missing_is_said_with_its_remedy(monkeypatch):
    def import_module(name):
        raise ImportError(f"no {name} here")

    monkeypatch.setattr(installation.importlib, "import_module", import_module)
    finding = installation._package("torch")
    assert (finding.ok, finding.required, finding.detail) == (False, True, "no torch here")
    assert "MISSING" in str(finding)
    assert "pip install" in str(finding)


def test_where_torch_is_broken_all_else_is_still_looked_at(monkeypatch):
    for name in [n for n in sys.modules if n.startswith("stanflow.flow")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("stanflow.flow", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    findings = {finding.name: finding for finding in installation.examine()}
    broken = {name for name, f in findings.items() if not f.ok and "torch" in f.detail}
    assert broken == {"torch"}
    assert findings["ArviZ"].ok
