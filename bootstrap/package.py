"""What a stage needs on EMR, in one archive: python -m bootstrap.package --out dist/emr.

1. Build the code's wheel (library, stages, experiment files).
2. Install it, not editable, with pinned dependencies into a new virtual environment of the release's Python. Spark is
   left out: the release brings its own.
3. Pack the environment (venv-pack), check the archive, write `manifest.json` with checksums and versions.

The wheel travels inside the archive, not by --py-files: Spark takes no .whl there and imports from a zip, where
neither the packages' data files nor numba's cache work; and one checksum then covers everything that runs.

`bootstrap/emr_environment.sh` is the recipe that brings the tools along and runs this.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bootstrap.archive import PackageError, check_archive, check_environment
from darkhaloscope.provenance import PACKAGE_FACTS, sha256_of

REPOSITORY = Path(__file__).resolve().parents[1]
RELEASE_PYTHON = {"emr-7.13.0": "3.11"}  # the Python that a release's Spark runs with
DEFAULT_RELEASE = "emr-7.13.0"
NODES_PREFIX = "/usr"  # where the release has that Python: /usr/bin/python3.11
EXTRAS = "search"  # onnxruntime: executors score
BESIDE = ("pandas",)  # what stages need of Spark's own dependencies
PACKAGES = ("darkhaloscope", "spark_jobs", "experiments")  # all that a stage imports or reads
MANIFEST = "manifest.json"


def package(
    python: str, out: Path, release: str = DEFAULT_RELEASE, prefix: str = NODES_PREFIX
) -> dict[str, Any]:
    """Build the archive and its manifest in `out`; return the manifest.

    Args:
        python: interpreter to build with; it must be the release's version.
        out: folder to write to.
        release: EMR release label.
        prefix: where the nodes have that Python.

    Raises:
        PackageError: wrong Python, a failed install, or an archive that would not run elsewhere.
    """
    if release not in RELEASE_PYTHON:
        raise PackageError(
            f"release {release!r}: its Python is not known here; known: {sorted(RELEASE_PYTHON)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="package-") as folder:
        environment = Path(folder, "environment")
        wheel = build_wheel(Path(folder))
        facts = {
            "wheel": wheel.name,
            "wheel_sha256": sha256_of(wheel),
            "commit": _commit(),
            "release": release,
            "python": RELEASE_PYTHON[release],
            "machine": platform.machine(),
            "built": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        install(python, environment, wheel)
        (environment / PACKAGE_FACTS).write_text(json.dumps(facts))
        check_environment(environment, RELEASE_PYTHON[release])
        archive = out / "environment.tar.gz"
        detach(environment, RELEASE_PYTHON[release], prefix)
        _pack(environment, archive)
        check_archive(archive, RELEASE_PYTHON[release], prefix, foreign=(folder, str(REPOSITORY)))
        shutil.copy(wheel, out / wheel.name)
    manifest = {**facts, "archive": archive.name, "archive_sha256": sha256_of(archive),
                "archive_bytes": archive.stat().st_size, "scripts": _scripts()}  # fmt: skip
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel from a copy of its sources, so that nothing of an earlier build gets in."""
    source = folder / "source"
    skip = shutil.ignore_patterns("*.egg-info", "build", "dist", "__pycache__", ".*")
    for entry in ("pyproject.toml", "README.md", "LICENSE", *PACKAGES):
        path = REPOSITORY / entry
        if path.is_dir():
            shutil.copytree(path, source / entry, ignore=skip)
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(path, source / entry)
    _run(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(python: str, environment: Path, wheel: Path) -> None:
    """Create a virtual environment and install the wheel and pinned dependencies into it."""
    _run(python, "-m", "venv", "--without-pip", environment)
    into = (sys.executable, "-m", "uv", "pip", "install", "-q", "--python", environment / "bin" / "python")
    _run(*into, "--link-mode", "copy", "-c", REPOSITORY / "constraints.txt", f"{wheel}[{EXTRAS}]", *BESIDE)


def detach(environment: Path, version: str, prefix: str) -> None:
    """Make an environment use the nodes' Python instead of the build machine's.

    venv-pack has an option for it, which in version 0.2.0 makes a link to `python3.113.11`.
    """
    interpreter = Path(prefix, "bin", f"python{version}")
    link = environment / "bin" / interpreter.name
    link.unlink()
    link.symlink_to(interpreter)
    for name in ("python", "python3"):
        (environment / "bin" / name).unlink()
        (environment / "bin" / name).symlink_to(interpreter.name)
    (environment / "pyvenv.cfg").write_text(
        f"home = {interpreter.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
    )


def _scripts() -> dict[str, str]:
    """Return the SHA-256 of what travels beside the archive, by its path in the repository."""
    paths = [
        *sorted((REPOSITORY / "spark_jobs").glob("*_pipeline.py")),
        REPOSITORY / "bootstrap/prepare_node.sh",
    ]
    return {str(path.relative_to(REPOSITORY)): sha256_of(path) for path in paths}


def _pack(environment: Path, archive: Path) -> None:
    try:
        import venv_pack
    except ImportError:
        raise PackageError(
            "venv-pack is not installed; run bootstrap/emr_environment.sh, which brings it"
        ) from None
    venv_pack.pack(str(environment), str(archive), force=True)


def _commit() -> str:
    found = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


def _run(*command: Any) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise PackageError(
            f"{' '.join(str(c) for c in command)}: {(done.stderr or done.stdout).strip()[-2000:]}"
        )


def main(argv: list[str] | None = None) -> int:
    """Build the package; return the exit status."""
    parser = argparse.ArgumentParser(
        "python -m bootstrap.package",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("dist/emr"), help="folder to write (default: %(default)s)"
    )
    parser.add_argument(
        "--python", default="python3.11", help="interpreter to build with (default: %(default)s)"
    )
    parser.add_argument("--release", default=DEFAULT_RELEASE, help="EMR release label (default: %(default)s)")
    parser.add_argument(
        "--nodes-prefix",
        default=NODES_PREFIX,
        metavar="DIR",
        help="where nodes have that Python (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    try:
        manifest = package(args.python, args.out, args.release, args.nodes_prefix)
    except PackageError as error:
        print(f"package: {error}", file=sys.stderr)
        return 1
    size = manifest["archive_bytes"] / 1e6
    print(f"package: {args.out / manifest['archive']}, {size:.0f} MB, sha256 {manifest['archive_sha256']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
