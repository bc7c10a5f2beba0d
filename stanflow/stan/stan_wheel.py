"""The wheel of httpstan, which holds Stan's C++: where it is installed, and how it is fetched.

`pip install 'stanflow[native]'` installs it as a package, in the version that this Python takes:
the newest, with the newest Stan, wants Python 3.12. But Stan's files in it know nothing of Python.
So `stanflow doctor --install native` fetches the newest wheel as a file, and unpacks these alone.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from stanflow.errors import EngineError, one_line, what_brings_native
from stanflow.stan.cache import cache_folder, lock, new_folder, writing_to_cache
from stanflow.stan.stan_headers import StanHeaders, headers_in, stan_version_in

_VERSION = "4.17.0"  # Stan 2.39
_WHEELS_PYTHON = "3.13"
_SHA256 = (
    "b05349967ad19a6970d4392732653b8ad98839cb3cb7a7e8a493ae70a264988e",  # Linux, x86-64
    "f1559fce9ae4aaff28e5faaad368591a43d158869b378fc0ed2fea9731ee8510",  # macOS, arm64
)
_PACKAGE = "httpstan/"
_NEEDED = tuple(_PACKAGE + part for part in ("include/", "lib/", "stanc"))


def find_headers() -> StanHeaders:
    """Find Stan's headers, the newest that are installed.

    Raises
    ------
    EngineError
        There are none, or there is no C++ compiler.
    """
    versions = {folder: stan_version_in(folder) for folder in _folders()}
    found = {
        tuple(map(int, version.split("."))): folder
        for folder, version in versions.items()
        if version is not None
    }
    if not found:
        raise EngineError(f"Stan's own C++ is not installed; {what_brings_native()}")
    return headers_in(found[max(found)])


def install() -> StanHeaders:
    """Fetch the newest wheel by pip, check it by its hash, and unpack Stan's files into the cache.

    Raises
    ------
    EngineError
        There is no such wheel for this platform, pip is missing or fails, or the cache cannot be
        written; or there is no C++ compiler.
    """
    folder = _fetched_folder()
    with writing_to_cache(), lock(folder):
        if stan_version_in(folder) is None:
            stan_version_in.cache_clear()
            shutil.rmtree(folder, ignore_errors=True)
            with (
                tempfile.TemporaryDirectory(prefix="stanflow-") as scratch,
                new_folder(folder) as arriving,
            ):
                _unpack(_download(Path(scratch)), arriving)
    return headers_in(folder)


def is_newest(folder: Path) -> bool:
    """Whether a folder is the one that `install` fills."""
    return folder == _fetched_folder()


def _fetched_folder() -> Path:
    return cache_folder() / "stan" / f"httpstan-{_VERSION}"


def _folders() -> Iterator[Path]:
    yield _fetched_folder()
    package = importlib.util.find_spec("httpstan")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent


def _download(folder: Path) -> Path:
    print(f"fetching Stan's C++ (httpstan {_VERSION}, 35 MB)", file=sys.stderr)
    wanted = folder / "wanted.txt"
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in _SHA256)
    wanted.write_text(f"httpstan=={_VERSION} {hashes}\n", encoding="utf-8")
    ran = subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--only-binary", ":all:", "--python-version", _WHEELS_PYTHON,
            "--require-hashes", "--requirement", wanted, "--dest", folder,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    wheels = list(folder.glob("*.whl"))
    if ran.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in ran.stderr:
        raise EngineError(
            f"pip, which fetches Stan's C++, is not in {sys.prefix}; `python -m ensurepip` brings "
            "it"
        )
    errors = [line for line in ran.stderr.splitlines() if line.startswith("ERROR:")]
    raise EngineError(
        f"pip could not fetch httpstan {_VERSION}: "
        f"{one_line(errors[-1] if errors else ran.stderr)[-300:]}",
        ran.stderr,
    )


def _unpack(wheel: Path, folder: Path) -> None:
    """Unpack what is needed of the package, without its folder's name."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.filename.startswith(_NEEDED):
                member.filename = member.filename.removeprefix(_PACKAGE)
                archive.extract(member, folder)
    (folder / "stanc").chmod(0o755)
