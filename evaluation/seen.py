"""What a network sees of real lenses and of injections: its penultimate features, and how their hosts look."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from darkhaloscope.dataset import committed_chunks, committed_files, content_hash, open_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.records import BANDS
from darkhaloscope.storage import filesystem, join, read_bytes
from darkhaloscope.survey.photometry import magnitude
from evaluation.gates import looks
from evaluation.gates.rows import SPLITS, read_rows, read_stamps
from training.batch import Batch, make_batch
from training.models import Finder
from training.predict import device_of
from training.selection import DataError

HOST = ("r magnitude", "g - r", "r - z", "sky noise r")
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Seen:
    """Stamps as the network sees them, and what their hosts are matched by.

    Attributes:
        feature: (n, feature).
        host: (n, 4) magnitudes, `HOST`: within 1.6 arcsec of the middle, arc included, since nothing else is known of a
            real lens; sky noise as a magnitude.
        content: hash of the pixels it was made from.
    """

    feature: np.ndarray
    host: np.ndarray
    content: str = ""


@torch.inference_mode()
def seen(model: Finder, batch: Batch, sky_sigma: np.ndarray) -> Seen:
    """Return what the network sees of a batch; sky_sigma (n, band) nmgy/pixel."""
    parts, device = [], device_of(model)
    for at in torch.arange(len(batch.label)).split(256):
        some = Batch(*(t[at] for t in batch)).to(device)
        parts.append(model.features(some.stamps, some.sky_sigma, some.meta).cpu().numpy())
    g, r, z = magnitude(np.maximum(looks.apertures(batch.stamps.float().numpy())[-1], 1e-3)).T
    host = np.stack([r, g - r, r - z, magnitude(sky_sigma[:, 1])], axis=1)
    return Seen(np.concatenate(parts), host)


def read_real(place: str, model: Finder) -> Seen:
    """Read real lenses; `place` is a folder of .npz files or a dataset of stamps.

    A file has `cutout` (y, x, band g r z), nmgy/pixel at 0.262 arcsec; its sky sigma is measured in the annulus. Of a
    dataset, packed or not, the rows of the sample real_positive are taken.


    Raises:
        DataError: nothing there, cutouts of another layout, smaller than the network's stamps or with NaN; or a network
            that takes columns which images alone do not have.
    """
    if committed_chunks(place) or any(committed_chunks(join(place, f"split={s}")) for s in SPLITS):
        return _real_rows(place, model)
    fs, path = filesystem(place)
    files = sorted(fs.glob(f"{path}/*.npz"))
    if not files:
        raise DataError(
            f"{place}: neither .npz files nor a committed dataset; see python -m evaluation.probe --help"
        )
    if model.preprocessing.meta_cols:
        raise DataError(
            f"{place}: the network takes the columns {list(model.preprocessing.meta_cols)}, which images alone do not "
            "have; give real lenses as rows of a stamps dataset"
        )
    stamps = np.stack([_cutout(join(place, f.rsplit("/", 1)[-1]), model.preprocessing.size) for f in files])
    sky = _MAD_TO_SIGMA * looks.annulus(stamps)[:, 3:]
    needed = any(c.startswith("sky_sigma") for c in model.preprocessing.columns)
    n = len(stamps)
    batch = Batch(
        torch.from_numpy(stamps), torch.ones(n), torch.from_numpy(sky if needed else sky[:, :0]).float(),
        torch.zeros(n, 0), torch.zeros(n, 16, dtype=torch.uint8), torch.zeros(n, 0),
    )  # fmt: skip
    content = hashlib.sha256(stamps.tobytes()).hexdigest()[:16]
    return replace(seen(model, batch, sky), content=content)


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


def _real_rows(place: str, model: Finder) -> Seen:
    roots = [join(place, f"split={s}") for s in SPLITS if committed_chunks(join(place, f"split={s}"))]
    tables = []
    for url in (u for root in roots or [place] for u in committed_files(root)):
        with open_part(url) as part:
            rows = part.read()
            real = pc.and_(
                pc.equal(rows.column("sample"), "real_positive"), pc.equal(rows.column("cutout_ok"), 1)
            )
            tables.append(rows.filter(real))
    table = pa.concat_tables(tables).combine_chunks()
    if not table.num_rows:
        raise DataError(f"{place}: no row of the sample real_positive; give a dataset that has real lenses")
    content = " ".join(content_hash(root) for root in roots or [place])
    return replace(_of_table(table, model, place), content=content)


def read_injections(data: str, model: Finder, trained: Experiment, split: str, limit: int) -> Seen:
    """Return the injections of a split, each host once."""
    rows = read_rows(data, trained, limit)
    injected = rows.chosen & (rows.columns["label"] == 1) & (rows.columns["split"] == split)
    parts = [_of_table(table, model, data) for _, table in read_stamps(replace(rows, chosen=injected))]
    if not parts:
        raise DataError(f"{data}: no injections in split {split}; give another --split")
    feature, host = (np.concatenate([getattr(p, name) for p in parts]) for name in ("feature", "host"))
    return Seen(feature, host, rows.content)


def _of_table(table: pa.Table, model: Finder, where: str) -> Seen:
    sky = np.stack([table.column(f"sky_sigma_{b}").to_numpy() for b in BANDS], axis=1).astype(float)
    return seen(model, make_batch(table, model.preprocessing, where), sky)
