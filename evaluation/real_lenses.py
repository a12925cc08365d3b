"""Stamps of real lenses, from images or from a dataset: what injections are compared with."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from darkhaloscope.dataset import committed_chunks, committed_files, content_hash, open_part
from darkhaloscope.records import BANDS
from darkhaloscope.stats.robust import MAD_TO_SIGMA
from darkhaloscope.storage import filesystem, join, read_bytes
from evaluation.gates import looks
from evaluation.gates.rows import SPLITS
from training.batch import Batch, make_batch
from training.preprocess import Preprocessing
from training.selection import DataError


@dataclass(frozen=True)
class RealLenses:
    """Real lenses as a network takes them.

    Attributes:
        batch: its stamps, and what the network needs beside them.
        sky_sigma: (n, band) nmgy/pixel.
        content: hash of what was read.
    """

    batch: Batch
    sky_sigma: np.ndarray
    content: str

    @property
    def stamps(self) -> np.ndarray:
        """Stamps (n, band, y, x), nmgy/pixel float32."""
        return self.batch.stamps.float().numpy()


def read_real(place: str, preprocessing: Preprocessing) -> RealLenses:
    """Read real lenses; `place` is a folder of .npz files or a dataset of stamps.

    A file has `cutout` (y, x, band g r z), nmgy/pixel at 0.262 arcsec; its sky sigma is measured in the annulus. Of a
    dataset, packed or not, the rows of the sample real_positive are taken.

    Raises:
        DataError: nothing there, cutouts of another layout, smaller than the network's stamps or with NaN; or a network
            that takes columns which images alone do not have.
    """
    roots = [r for r in (place, *(join(place, f"split={s}") for s in SPLITS)) if committed_chunks(r)]
    return _of_dataset(place, roots, preprocessing) if roots else _of_images(place, preprocessing)


def sky_sigma_of(table: pa.Table) -> np.ndarray:
    """Return the sky noise of rows of stamps, (n, band) nmgy/pixel."""
    return np.stack([table.column(f"sky_sigma_{b}").to_numpy() for b in BANDS], axis=1).astype(float)


def _of_dataset(place: str, roots: list[str], preprocessing: Preprocessing) -> RealLenses:
    tables = []
    for url in (u for root in roots for u in committed_files(root)):
        with open_part(url) as part:
            for group in range(part.num_row_groups):
                rows = part.read_row_group(group)
                real = pc.equal(rows.column("sample"), "real_positive")
                tables.append(rows.filter(pc.and_(real, pc.equal(rows.column("cutout_ok"), 1))))
    table = pa.concat_tables(tables).combine_chunks()
    if not table.num_rows:
        raise DataError(f"{place}: no row of the sample real_positive; give a dataset that has real lenses")
    content = " ".join(content_hash(root) for root in roots)
    return RealLenses(make_batch(table, preprocessing, place), sky_sigma_of(table), content)


def _of_images(place: str, preprocessing: Preprocessing) -> RealLenses:
    fs, path = filesystem(place)
    files = sorted(fs.glob(f"{path}/*.npz"))
    if not files:
        raise DataError(
            f"{place}: neither .npz files nor a committed dataset; see python -m evaluation.probe --help"
        )
    if preprocessing.meta_cols:
        raise DataError(
            f"{place}: the network takes the columns {list(preprocessing.meta_cols)}, which images alone do not "
            "have; give real lenses as rows of a stamps dataset"
        )
    stamps = np.stack([_cutout(join(place, f.rsplit("/", 1)[-1]), preprocessing.size) for f in files])
    sky = MAD_TO_SIGMA * looks.annulus(stamps)[:, 3:]
    needed = any(c.startswith("sky_sigma") for c in preprocessing.columns)
    n = len(stamps)
    batch = Batch(
        torch.from_numpy(stamps), torch.ones(n), torch.from_numpy(sky if needed else sky[:, :0]).float(),
        torch.zeros(n, 0), torch.zeros(n, 16, dtype=torch.uint8), torch.zeros(n, 0),
    )  # fmt: skip
    return RealLenses(batch, sky, hashlib.sha256(stamps.tobytes()).hexdigest()[:16])


def _cutout(url: str, size: int) -> np.ndarray:
    """Return the middle of a real cutout, (band, y, x) float32."""
    with np.load(io.BytesIO(read_bytes(url)), allow_pickle=False) as content:
        if "cutout" not in content:
            raise DataError(f"{url}: holds {list(content)}; expected 'cutout' (y, x, band), nmgy/pixel")
        image = content["cutout"]
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < size:
        raise DataError(
            f"{url}: cutout has shape {image.shape}; expected (y, x, 3) of at least {size} pixels"
        )
    y0, x0 = ((n - size + 1) // 2 for n in image.shape[:2])
    middle = image[y0 : y0 + size, x0 : x0 + size].transpose(2, 0, 1).astype(np.float32)
    if not np.isfinite(middle).all() or not middle.any():
        raise DataError(f"{url}: has NaN or infinite pixels, or nothing but zeros; take it out of the folder")
    return middle
