import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stanflow.errors import UsageError
from stanflow.runs.folder import (
    check_output_folder,
    release_folder,
    reserve_folder,
    written_whole,
)


def test_a_folder_appears_with_all_that_was_written(tmp_path):
    with written_whole(tmp_path / "deep" / "fit") as folder:
        (folder / "a").write_text("one")
        assert not (tmp_path / "deep" / "fit").exists()
    assert (tmp_path / "deep" / "fit" / "a").read_text() == "one"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["fit"]


def test_a_folder_is_replaced_whole(tmp_path):
    for text in ("one", "two"):
        with written_whole(tmp_path / "fit", force=True) as folder:
            (folder / text).write_text(text)
    assert [p.name for p in (tmp_path / "fit").iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]


def test_after_an_error_everything_is_as_before(tmp_path):
    with written_whole(tmp_path / "fit") as folder:
        (folder / "a").write_text("one")
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "fit") as folder:
        (folder / "a").write_text("half")
        _ = 1 / 0
    assert (tmp_path / "fit" / "a").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]


def test_a_kill_leaves_what_was_there(tmp_path):
    code = (
        "import os; from pathlib import Path; from stanflow.runs.folder import written_whole\n"
        f"with written_whole(Path({str(tmp_path / 'fit')!r})) as folder:\n"
        "    (folder / 'a').write_text('half')\n"
        f"    os.kill(os.getpid(), {signal.SIGKILL})\n"
    )
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / "a").write_text("one")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "fit" / "a").read_text() == "one"


def test_the_folder_gets_the_users_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        with written_whole(tmp_path / "fit"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "fit").stat().st_mode & 0o777 == 0o750


def test_a_full_disk_is_an_error_in_words(tmp_path):
    with (
        pytest.raises(UsageError, match="fit cannot be written: no space left on device"),
        written_whole(tmp_path / "fit"),
    ):
        Path("/dev/full").write_text("x" * 100_000)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_in_place(tmp_path, monkeypatch):
    """It may be the current folder, a mounted one, or the end of a symbolic link."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    monkeypatch.chdir(tmp_path / "here")
    before = (tmp_path / "here").stat().st_ino
    for name in (".", "../link"):
        with written_whole(check_output_folder(name, force=False)) as folder:
            (folder / "fit.json").write_text("{}")
            (folder / "data.json").write_text("one")
        with pytest.raises(UsageError, match="already holds a fit"):
            check_output_folder(name, force=False)
    assert (tmp_path / "here").stat().st_ino == before
    assert (tmp_path / "link").is_symlink()
    for name in ("here", "there"):
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["data.json", "fit.json"]
    with written_whole(check_output_folder("../link", force=True), force=True) as folder:
        (folder / "fit.json").write_text("new")
    assert (tmp_path / "there" / "fit.json").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here", "link", "there"]


def test_a_fit_that_cannot_be_replaced_is_still_there(tmp_path, monkeypatch):
    fit = tmp_path / "fit"
    fit.mkdir()
    (fit / "fit.json").write_text("one")
    rename = Path.rename

    def refuse_to_arrive(self, target):
        if self.name.startswith(".arriving-fit-") and not self.name.endswith("-before"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_to_arrive)
    with pytest.raises(UsageError, match="no space"), written_whole(fit, force=True) as folder:
        (folder / "fit.json").write_text("two")
    assert (fit / "fit.json").read_text() == "one"
    assert list(tmp_path.iterdir()) == [fit]


def test_a_fit_that_came_to_be_there_meanwhile_is_not_replaced(tmp_path):
    fit = tmp_path / "fit"
    with pytest.raises(UsageError, match="meanwhile; this one is in"), written_whole(fit) as folder:
        (folder / "fit.json").write_text("two")
        fit.mkdir()
        (fit / "fit.json").write_text("one")
    assert (fit / "fit.json").read_text() == "one"
    (rescued,) = [path for path in tmp_path.iterdir() if path != fit]
    assert (rescued / "fit.json").read_text() == "two"


def test_folders_are_reserved_one_by_one(tmp_path):
    parent = tmp_path / "fits"
    names = [reserve_folder(parent, "m").name for _ in range(3)]
    assert names == ["m", "m-2", "m-3"]
    (parent / "m-2" / "fit.json").write_text("{}")
    for name in names:
        release_folder(parent / name)
    assert [path.name for path in parent.iterdir()] == ["m-2"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is a file"):
        reserve_folder(tmp_path / "file", "m")


def test_checking_leaves_no_trace(tmp_path):
    check_output_folder(tmp_path / "a" / "b" / "fit", force=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    check_output_folder(tmp_path / "empty", force=False)


def test_without_permission_it_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    code = (
        "import os\n"
        "from stanflow.errors import UsageError\n"
        "from stanflow.runs.folder import check_output_folder\n"
        "if os.geteuid() == 0: os.setuid(65534)  # root may write anywhere\n"
        f"try: check_output_folder({str(tmp_path / 'fit')!r}, force=False)\n"
        "except UsageError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    tmp_path.chmod(0o700)
    assert "cannot be written: permission denied" in result.stdout
