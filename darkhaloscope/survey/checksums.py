"""The survey's own checksums: a file in each brick's folder with the sha256 of every file beside it.

`coadd/<AAA>/<brick>/legacysurvey_<release>_<region>_coadd_<AAA>_<brick>.sha256sum`, lines of digest and file name as
`sha256sum` writes them. DR10's were made in November 2022, and files replaced later need not agree with them:
`fetch` therefore accepts a file that arrives twice the same, whatever its checksum, and says so.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from darkhaloscope.storage import join
from darkhaloscope.survey.errors import TransferFailed
from darkhaloscope.survey.files import copy_to_local
from darkhaloscope.survey.transfer import Client

_RELEASE = re.compile(r"/(dr\d+)/(north|south)/*$")
_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S+)")
_MAX_BYTES = 1 << 20


def checksums_path(source_url: str, brickname: str) -> str | None:
    """Return the path below a release's base URL of a brick's checksums; None where the URL names no release."""
    found = _RELEASE.search(source_url)
    if found is None:
        return None
    folder = brickname[:3]
    name = f"legacysurvey_{found[1]}_{found[2]}_coadd_{folder}_{brickname}.sha256sum"
    return f"coadd/{folder}/{brickname}/{name}"


def parse_checksums(text: str) -> dict[str, str]:
    """Return file name -> sha256 in hexadecimal; lines that are neither are left out."""
    found = (_LINE.fullmatch(line.rstrip()) for line in text.splitlines())
    return {match[2].rsplit("/", 1)[-1]: match[1] for match in found if match}


def read_checksums(source_url: str, brickname: str, client: Client | None = None) -> dict[str, str]:
    """Return a brick's checksums by file name; nothing where the source has none or does not give them."""
    path = checksums_path(source_url, brickname)
    if path is None:
        return {}
    with tempfile.TemporaryDirectory(prefix="sha256sum-") as folder:
        copy = Path(folder) / "sha256sum"
        try:
            copy_to_local(join(source_url, path), copy, _MAX_BYTES, client)
        except (FileNotFoundError, TransferFailed):
            return {}
        return parse_checksums(copy.read_text(errors="replace"))
