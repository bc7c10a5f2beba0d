"""No program gets at a file of the server, whatever it includes and however."""

import base64
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanflow.errors import ProgramError
from stanflow.service import landlock
from stanflow.service.places import without_places
from stanflow.service.task import Task
from stanflow.service.work import TASKS
from stanflow.stan.embedded import _MIR_PREFIX, compile_program
from stanflow.stan.program import StanProgram

from .servers import NORMAL, ON_SQLITE

DATA = {"y": 1.0}
SECRETS = {
    "valid.stan": "real secret;",
    "invalid": "secret:$6$x\nsecret2:$6$y\n",
    "one line": "secret",
}
SPACES = [
    "",
    " ",
    "\t",
    "\f",
    "\n",
    "\r",
    "\r\n",
    "\r\r\n",
    "\n\n",
    "\v",
    "\xa0",
    "\u2028",
    " // c\n",
    "/**/",
]
SPELLINGS = [
    "{}", '"{}"', "<{}>", '"{}', "<{}", "{};", "../{}", "../../{}", "./{}", '"../{}"', "//{}",
    "{}\0",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A task's folder: secrets are in it, beside it, above it, and where the tests run."""
    top = tmp_path_factory.mktemp("server")
    task = top / "calls" / "call-x"
    task.mkdir(parents=True)
    for near in (task, task.parent, top):
        for name, text in SECRETS.items():
            (near / name).write_text(text)
    return task


_FILES = [*SECRETS, *("{top}/" + name for name in SECRETS)]
_INCLUDE = st.builds(
    lambda before, space, spelling, file: f"{before}#include{space}{spelling.format(file)}",
    st.sampled_from(["", " ", "\n", "real a;", "//", "// \r", "/* */", "/*", '"', "x"]),
    st.sampled_from(SPACES), st.sampled_from(SPELLINGS), st.sampled_from(_FILES),
)  # fmt: skip
_TEXT = st.sampled_from(["//", "/*", "*/", '"', "\n", "\r", "\f", "#", "int n;", "'", "\\"])
_PROGRAM = st.lists(st.one_of(_INCLUDE, _TEXT), min_size=1, max_size=5).map("".join)


def test_no_byte_of_a_file_comes_back(folder, monkeypatch):
    monkeypatch.chdir(folder)

    @settings(max_examples=400, deadline=None)
    @given(_PROGRAM)
    def check(text):
        program = f"data {{ {text}\n}} model {{ }}".replace("{top}", str(folder.parents[1]))
        task = Task("compile", program, "m")
        try:
            result = json.dumps(TASKS["compile"](task, folder))
            compiled = compile_program(StanProgram.from_file(folder / "m.stan"))
            result += str(base64.b64decode(compiled.removeprefix(_MIR_PREFIX)))
        except ProgramError as error:
            result = f"{error} {error.detail}"
        except Exception as error:
            result = f"{error}"
        written = program.replace("secret", "")
        assert "secret" not in result, (written, result)

    check()


@ON_SQLITE
@pytest.mark.parametrize("include", ["#include\n", "#include\f", "// a comment\r#include\r"])
def test_no_route_gives_a_file_back(server, include):
    secret = server.folder.parent / "secret"
    secret.write_text("secret_of_the_server\n")
    for name in ("../../../secret", "../../secret", str(secret)):
        program = f"parameters {{ real x;\n{include}{name}\n}} model {{ }}"
        refused = server.client.post("/v1/models", json={"program_code": program})
        assert (refused.status_code, refused.json()["kind"]) == (422, "program")
        assert "without #include" in refused.json()["detail"]
        assert "secret_of" not in refused.text


@ON_SQLITE
def test_an_include_in_a_comment_is_none(server):
    assert server.model(f"// #include a.stan\n{NORMAL} /* #include b.stan */")


@pytest.mark.slow
@ON_SQLITE
def test_messages_name_no_folder_of_the_server(server):
    model = server.model()
    job = server.begin("nuts", model, DATA, draws=10)
    server.wait(job)
    other = server.begin("nuts", model, DATA, draws=10)
    server.wait(other)
    (server.folder / "jobs" / job / "run" / "nuts.json").write_text("{")
    asked = {"fit": job, "reference": other}
    comparison = server.client.post("/v1/comparisons", json=asked).json()["id"]
    operation = server.wait(comparison)
    assert operation["status"] == "failed"
    told = json.dumps(operation["failure"])
    assert str(server.folder) not in told
    assert "/" not in operation["failure"]["detail"], told


def test_places_are_left_out_of_messages(tmp_path):
    text = f"{tmp_path}/run/fit.json and {tmp_path.parent} and {Path.home()}/a/b.txt; x ./ y"
    assert without_places(text, tmp_path) == "fit.json and  and b.txt; x ./ y"


WALLED = """
import os, socket, sys
from pathlib import Path
from stanflow.service.task import Task
from stanflow.service.walls import raise_walls

task, folder, parent = Task("fit"), Path(sys.argv[1]), int(sys.argv[2])
raise_walls(task, folder)
def tried(do):
    try:
        do()
    except OSError as error:
        return type(error).__name__
    return "done"
for path in sys.argv[4:]:
    print(path, tried(lambda: open(path, "rb").read(1)))
print("list", tried(lambda: os.listdir(folder.parent)))
print("write", tried(lambda: (folder.parent / "new").write_text("x")))
print("own", tried(lambda: (folder / "new").write_text("x")))
print("connect", tried(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[3])))))
print("signal", tried(lambda: os.kill(parent, 0)))
print("child", os.system(f"cat {sys.argv[4]} 2>/dev/null"))
"""


@pytest.mark.skipif(landlock.version() == 0, reason="this system has no Landlock")
def test_a_process_opens_what_its_task_needs_and_nothing_else(tmp_path):
    """Where a defect of an engine lets a program do more than compute."""
    folder = tmp_path / "jobs" / "one"
    folder.mkdir(parents=True)
    other = tmp_path / "jobs" / "other"
    other.write_text("another's draws")
    environment = f"/proc/{os.getpid()}/environ"
    secrets = [str(other), "/etc/shadow", "/etc/passwd", environment]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-P", "-c", WALLED, folder, str(os.getpid()), str(port), *secrets],
            capture_output=True, text=True, check=True,
            env={**os.environ, "HOME": str(tmp_path / "h")},
        )  # fmt: skip
    told = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert {told[path] for path in secrets if Path(path).exists()} == {"PermissionError"}
    assert (told["list"], told["write"], told["own"]) == (
        "PermissionError",
        "PermissionError",
        "done",
    )
    assert int(told["child"]) != 0
    if landlock.version() >= 4:
        assert told["connect"] == "PermissionError"
    if landlock.version() >= 6:
        assert told["signal"] == "PermissionError"


@ON_SQLITE
def test_a_worker_has_walls(server):
    """Asked of the process itself: it has given up new privileges, as Landlock demands."""
    job = server.begin("fits", server.model(), DATA, max_steps=10**6, preset="paper")
    server.wait(job, until=lambda o: o["progress"] is not None)
    (worker,) = server.workers()
    status = Path(f"/proc/{worker}/status").read_text()
    server.client.delete(f"/v1/operations/{job}")
    assert ("NoNewPrivs:\t1" in status) == (landlock.version() > 0)
