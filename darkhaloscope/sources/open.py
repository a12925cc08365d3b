"""Open a source bank by the experiment's `source_bank`: a URL, or nothing for the embedded synthetic bank."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import h5py
import numpy as np

from darkhaloscope.records import SPLITS
from darkhaloscope.sources.bank import REQUIRED, YOUNG, Bank, BankError, make_index
from darkhaloscope.sources.synthetic import synthetic_bank
from darkhaloscope.storage import filesystem, is_local
from darkhaloscope.survey.errors import TransferFailed

MAX_BYTES = 64 << 30  # of a remote bank: a million galaxies are about 20 GB


@cache
def open_bank(url: str) -> Bank:
    """Return the bank at `url` (a path, s3://, https://), opened once per process; "" is the embedded one.

    A remote bank is copied to a temporary folder, which goes when the process ends.

    Raises:
        BankError: no such file, not HDF5, another layout, columns of different lengths, sizes that no galaxy
            has, or a split without galaxies.
    """
    if not url:
        return synthetic_bank()
    path = filesystem(url)[1] if is_local(url) else _copy(url)
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise BankError(
            f"{url}: no such source bank; build one with python -m darkhaloscope.sources.build"
        ) from None
    except OSError as error:
        raise BankError(f"{url}: not an HDF5 file, or cut off: {error}; build or copy it again") from error
    return _checked(file, url)


def _copy(url: str) -> str:
    from darkhaloscope.survey.files import copy_to_local  # here: a GPU host may have no web client

    folder = tempfile.mkdtemp(prefix="source-bank-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = Path(folder, "bank.h5")
    try:
        copy_to_local(url, target, MAX_BYTES)
    except FileNotFoundError:
        raise BankError(f"{url}: no such source bank") from None
    except TransferFailed as error:
        raise BankError(f"{error}; the source bank could not be copied, try again") from error
    return str(target)


def _checked(file: h5py.File, url: str) -> Bank:
    missing = [n for n in ("images", *(f"meta/{c}" for c in REQUIRED)) if n not in file]
    missing += [f"attribute {n}" for n in ("src_pixscale_arcsec", "digest") if n not in file.attrs]
    if missing:
        raise BankError(f"{url}: not a source bank of this project: it lacks {missing}; build it again")
    try:
        meta = {name: np.asarray(data[()]) for name, data in file["meta"].items()}
    except OSError as error:
        raise BankError(f"{url}: corrupt: {error}; build or copy it again") from error
    images = file["images"]
    lengths = {"images": len(images), **{n: len(v) for n, v in meta.items()}}
    if images.ndim != 3 or len(set(lengths.values())) != 1:
        raise BankError(
            f"{url}: images {images.shape} and columns of lengths {lengths} do not belong together"
        )
    meta["split"] = np.array([v.decode() for v in meta["split"]], object)
    index = make_index(meta, float(file.attrs["src_pixscale_arcsec"]), str(file.attrs["digest"]))
    sizes = np.concatenate([index.hlr_arcsec, index.hlr_image_arcsec])
    if not (np.isfinite(sizes).all() and (sizes > 0).all() and index.pixel_arcsec > 0):
        raise BankError(f"{url}: half-light radii and the pixel size must be positive and finite")
    counts = {s: int((index.split == s).sum()) for s in SPLITS}
    if sum(counts.values()) != len(index) or not all(counts.values()):
        raise BankError(f"{url}: galaxies per split {counts} of {len(index)}; each split needs some")
    if "components" not in file:
        return Bank(index, images)
    young = np.stack([meta[name] for name in YOUNG], axis=1)
    return Bank(index, images, file["components"], young)
