"""Which sweep files there are: those of a folder (local, s3, an https index page), or those a text file lists."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from darkhaloscope.dataset import DatasetError
from darkhaloscope.sections import Survey
from darkhaloscope.storage import filesystem, is_local, join, read_bytes, resolve, retrying

LISTS = (".txt", ".lst")


@dataclass(frozen=True)
class Sweep:
    """A sweep file, the URL of its photometric redshifts ("": none), and its size where the source tells it."""

    url: str
    companion: str = ""
    bytes: int = 0


def list_sweeps(survey: Survey) -> list[Sweep]:
    """Return the sweep files of a survey, sorted by URL.

    `survey.sweeps` is a folder that is looked through for sweep-*.fits, or a text file (.txt) with a path or URL a
    line, relative ones to the text file's folder; empty lines and those that begin with # do not count.

    Raises:
        DatasetError: there are none, or one is listed twice.
    """
    place = resolve(survey.source, survey.sweeps)
    found = _listed(place) if place.endswith(LISTS) else _in_folder(place)
    if not found:
        raise DatasetError(
            f"{place}: no sweep-*.fits; check survey.source and survey.sweeps, or paint the simulated sky with "
            "`make smoke-local`"
        )
    return [Sweep(url, _companion(survey, url), size) for url, size in sorted(found.items())]


def _in_folder(folder: str) -> dict[str, int]:
    """Return URL -> size of a folder's sweep files; 0 where the source does not tell (an index page)."""
    fs, path = filesystem(folder)
    scheme = "" if is_local(folder) or path.startswith("http") else "s3://"
    found = retrying(folder, lambda: fs.glob(f"{path}/sweep-*.fits", detail=True))
    names = {scheme + name: facts for name, facts in found.items() if not name.endswith("-pz.fits")}
    return {name: int(facts.get("size") or 0) for name, facts in names.items()}


def _listed(place: str) -> dict[str, int]:
    folder = place.rsplit("/", 1)[0]
    lines = [line.strip() for line in read_bytes(place, 16 << 20).decode().splitlines()]
    urls = [resolve(folder, line) for line in lines if line and not line.startswith("#")]
    if repeated := sorted(url for url, times in Counter(urls).items() if times > 1):
        raise DatasetError(
            f"{place}: lists {len(repeated)} of {len(urls)} sweeps more than once, e.g. {repeated[0]}; list each once"
        )
    return dict.fromkeys(urls, 0)


def _companion(survey: Survey, url: str) -> str:
    """Return the URL of a sweep's photometric redshifts, "" where `survey.redshifts` names no folder of them."""
    if not survey.redshifts or survey.redshifts.endswith(".parquet"):
        return ""
    name = url.rsplit("/", 1)[-1].removesuffix(".fits")
    return join(resolve(survey.source, survey.redshifts), f"{name}-pz.fits")


def in_chunks(sweeps: list[Sweep], per_chunk: int) -> list[list[Sweep]]:
    """Return the sweeps chunk by chunk, in each the largest first: the last task to start is then a short one.

    Which sweep is in which chunk depends on the names alone, since sizes are not always told.
    """
    chunks = [sweeps[i : i + per_chunk] for i in range(0, len(sweeps), per_chunk)]
    return [sorted(chunk, key=lambda s: (-s.bytes, s.url)) for chunk in chunks]
