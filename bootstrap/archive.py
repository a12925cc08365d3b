"""Will a packed environment run on another machine? Checks before and after packing."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from darkhaloscope.errors import Explained

SCRIPT_BYTES = 4096  # of a script in bin/ that are searched; the shebang is its first line


class PackageError(Explained, RuntimeError):
    """An environment that cannot be packed, or an archive that would not run on a node; the message says why."""


def check_environment(environment: Path, version: str) -> None:
    """Refuse an environment of another Python, or one that installs the project by reference.

    Raises:
        PackageError: names what was found and what to do.
    """
    asked = [str(environment / "bin" / "python"), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    found = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    if found != version:
        raise PackageError(
            f"{environment}: its Python is {found or 'broken'}, the release has {version}; compiled packages of "
            f"one do not load in the other; build with --python python{version}"
        )
    for facts in environment.glob("lib/python*/site-packages/*.dist-info/direct_url.json"):
        if json.loads(facts.read_text()).get("dir_info", {}).get("editable"):
            raise PackageError(f"{facts.parent.name}: an editable install; install the wheel instead")


def check_archive(archive: Path, version: str, prefix: str, foreign: Iterable[str] = ()) -> None:
    """Refuse an archive that points to the machine it was built on.

    Args:
        archive: tar.gz of a virtual environment.
        version: Python version of the release, "3.11".
        prefix: where the nodes have that Python: bin/python has to lead there.
        foreign: folders of the build machine; no script may name one.

    Raises:
        PackageError: lists all of: `__editable__` finders, .egg-link files, .pth files with absolute paths, scripts and
            settings that name a folder of the build machine, a Python that leads elsewhere, no environment at all.
    """
    faults: list[str] = []
    names: set[str] = set()
    with tarfile.open(archive) as tar:
        for member in tar:
            names.add(member.name.removeprefix("./"))
            faults += _faults_of(tar, member, version, prefix, tuple(foreign))
    if "bin/python" not in names:
        faults.append("no bin/python: not a packed virtual environment")
    for package in ("darkhaloscope", "spark_jobs"):
        if f"lib/python{version}/site-packages/{package}/__init__.py" not in names:
            faults.append(f"package {package} is not in it")
    if faults:
        raise PackageError(
            f"{archive}: would not run on a node:\n  " + "\n  ".join(faults[:10]) + "\nbuild it anew with "
            "bootstrap/emr_environment.sh, which installs the wheel into a fresh environment"
        )


def _faults_of(
    tar: tarfile.TarFile, member: tarfile.TarInfo, version: str, prefix: str, foreign: tuple[str, ...]
) -> list[str]:
    path = PurePosixPath(member.name)
    if path.name.startswith("__editable__") or path.suffix == ".egg-link":
        return [f"{member.name}: an editable install points to the build machine"]
    if member.issym():
        return _faults_of_link(member, version, prefix)
    if not member.isfile():
        return []
    if path.suffix == ".pth":
        lines = _text(tar, member, member.size).splitlines()
        return [
            f"{member.name}: names {line!r} of the build machine" for line in lines if line.startswith("/")
        ]
    if path.name == "pyvenv.cfg":
        home = [
            ln.split("=")[1].strip()
            for ln in _text(tar, member, member.size).splitlines()
            if ln.startswith("home")
        ]
        wrong = [h for h in home if h != f"{prefix}/bin"]
        return [f"{member.name}: home = {h}; the nodes have Python in {prefix}/bin" for h in wrong]
    if path.parent.name == "bin":
        text = _text(tar, member, SCRIPT_BYTES)
        return [f"{member.name}: names {folder}" for folder in foreign if folder in text]
    return []


def _faults_of_link(member: tarfile.TarInfo, version: str, prefix: str) -> list[str]:
    target = member.linkname
    if not target.startswith("/") or target == f"{prefix}/bin/python{version}":
        return []
    return [f"{member.name}: leads to {target}; expected {prefix}/bin/python{version}"]


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo, size: int) -> str:
    stream = tar.extractfile(member)
    return stream.read(size).decode(errors="replace") if stream is not None else ""
