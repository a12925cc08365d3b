"""Go through the stamps once: take arcs away, look at what is left, and ask the network about variants."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from tqdm import tqdm

from darkhaloscope.draws import digest
from darkhaloscope.injection.arcs import added_light, arc_of
from darkhaloscope.injection.noise import photon_noise, sky_gain
from darkhaloscope.injection.psfs import load_kernels
from darkhaloscope.records import BANDS
from darkhaloscope.sources.open import open_bank
from evaluation.gates import looks
from evaluation.gates.changed import blob_of, ring_of, shuffled
from evaluation.gates.rows import Rows, read_stamps
from training.batch import Batch, make_batch
from training.models import Finder
from training.predict import predict
from training.preprocess import reference_level
from training.selection import DataError

VARIANTS = ("as it is", "arc removed", "ring", "blob", "shuffled")
"""What the network is asked about: a positive stamp, and what becomes of it. Controls: as it is, and shuffled."""
SHEET = 4  # positives whose variants are kept as pictures
_FLUX_TOLERANCE = 2e-3  # of arc_flux against the arc rendered again; other CPU targets differ by 1e-5


@dataclass
class Measured:
    """What the gates are computed from; arrays have one row for each stamp read.

    Attributes:
        row: index in `Rows.columns`.
        label: bool, positive.
        look: family -> features of the stamp without its arc.
        with_arc: "core" and "total flux" of the stamp as it is.
        drawn: the same where controls have their virtual arc added: the prior, drawn on hosts that nobody touched.
        level: what the model's normalisation subtracts and divides by, and the annulus statistics, with the arc, by
            name.
        condition: columns of `looks.CONDITIONS`.
        pixels: (n, band, y, x) float16, asinh of the stamp without its arc over its sky sigma, means of 2 x 2 pixels.
        fwhm, sky_sigma: (n, band).
        meta: (n, column) raw values of the network's metadata columns.
        logit: variant -> logits; NaN where it was not asked.
        sheet: some positives: variant -> image.
    """

    row: np.ndarray
    label: np.ndarray
    look: dict[str, np.ndarray]
    with_arc: dict[str, np.ndarray]
    drawn: dict[str, np.ndarray]
    level: dict[str, np.ndarray]
    condition: dict[str, np.ndarray]
    pixels: np.ndarray
    fwhm: np.ndarray
    sky_sigma: np.ndarray
    meta: np.ndarray
    logit: dict[str, np.ndarray]
    sheet: list[dict[str, np.ndarray]] = field(default_factory=list)


def measure(rows: Rows, model: Finder, split: str, variants: int, progress: bool = True) -> Measured:
    """Read the chosen stamps and measure all that the gates need.

    Args:
        rows: of `read_rows`.
        model: in evaluation mode.
        split: the one the network is asked about.
        variants: positives at most whose ring, blob and shuffled stamp are scored, and controls whose shuffled one is.
        progress: show a bar.

    Raises:
        DataError: the arcs rendered again are not those that were added.
    """
    kernels = load_kernels(rows.experiment)
    pictured = (rows.columns["source_id"][rows.chosen] >= 0).any()
    bank = open_bank(rows.experiment.injection.source_bank) if pictured else None
    asked = rows.chosen & (rows.columns["split"] == split)
    varied = np.zeros(len(asked), bool)
    for label in (0, 1):
        here = np.flatnonzero(asked & (rows.columns["label"] == label))
        varied[here[np.argsort(rows.columns["task_id"][here].astype(str))[:variants]]] = True
    parts: list[dict[str, np.ndarray]] = []
    sheet: list[dict[str, np.ndarray]] = []
    with tqdm(total=int(rows.chosen.sum()), desc="gates", unit="stamp", disable=not progress) as bar:
        for index, table in read_stamps(rows):
            arcs = arc_of(table, rows.experiment, kernels, bank)
            _check_arcs(arcs, table, rows.root)
            some = _Some(index, table, arcs, rows, model)
            parts.append(some.look() | some.ask(asked[index], varied[index], sheet))
            bar.update(len(index))
    every = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}

    def under(prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): v for k, v in every.items() if k.startswith(prefix)}

    return Measured(
        every["row"], every["label"], under("look "), under("with arc "), under("drawn "), under("level "),
        under("condition "), every["pixels"], every["fwhm"], every["sky_sigma"], every["meta"], under("logit "),
        sheet,
    )  # fmt: skip


def _check_arcs(arcs: np.ndarray, table: pa.Table, where: str) -> None:
    """Refuse data whose arcs cannot be taken away: they were made with another experiment than the record says."""
    stated = table.column("arc_flux_r").to_numpy().astype(float)
    found = arcs[:, 1].sum(axis=(1, 2), dtype=np.float64)
    wrong = np.abs(found - stated) > _FLUX_TOLERANCE * np.abs(stated) + 1e-4
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{where}: the arc of task_id {table.column('task_id')[i]} rendered again has {found[i]:.5g} nmgy in r, "
            f"its column arc_flux_r says {stated[i]:.5g} ({wrong.sum()} of {len(wrong)} rows differ): the stamps were "
            "made with another experiment, PSF kernel or source bank than the record beside them says; without the "
            "very arc that was added no gate means anything"
        )


class _Some:
    """Some stamps with their arcs."""

    def __init__(
        self, index: np.ndarray, table: pa.Table, arcs: np.ndarray, rows: Rows, model: Finder
    ) -> None:
        self.index, self.rows, self.model, self.table = index, rows, model, table
        self.positive = table.column("label").to_numpy() == 1
        self.batch = make_batch(table, model.preprocessing, rows.root)
        self.stamps = self.batch.stamps.float().numpy()
        self.fwhm, self.sky = (self._per_band(n) for n in ("fwhm", "sky_sigma"))
        self.arcs = added_light(table, rows.experiment, arcs=arcs)
        self.drawn = np.where(self.positive[:, None, None, None], self.stamps, self.stamps + arcs)
        self.bare = self.stamps - self.arcs
        self.noisy = self._with_virtual_noise(arcs)

    def _per_band(self, name: str) -> np.ndarray:
        return np.stack([self.table.column(f"{name}_{b}").to_numpy().astype(float) for b in BANDS], axis=1)

    def _with_virtual_noise(self, arcs: np.ndarray) -> np.ndarray:
        """Return the stamps without arcs, controls with the photon noise that their virtual arc would have had.

        The noise of the arc stays behind when the arc is taken away. It belongs to the arc and is no shortcut, so both
        classes must have it. The gain is that of a nominal sky; a brick's own is not known here.
        """
        bare = self.bare
        if not self.rows.experiment.stamps.poisson_noise:
            return bare
        bare = bare.copy()
        for i in np.flatnonzero(~self.positive):
            gain = np.array([sky_gain(s**2, b) for s, b in zip(self.sky[i], BANDS, strict=True)])
            invvar = np.broadcast_to(self.sky[i, :, None, None] ** -2.0, arcs[i].shape)
            key = digest("gates", self.table.column("task_id")[int(i)].as_py())
            light = np.where(self.stamps[i] == 0, 0.0, arcs[i])
            bare[i] += photon_noise(light, gain, invvar, key).astype(np.float32)
        return bare

    def look(self) -> dict[str, np.ndarray]:
        """Return what simple classifiers see."""
        scale = self.sky[:, :, None, None]
        centre, divisor = reference_level(
            self.model.preprocessing, self.batch.stamps, torch.from_numpy(self.sky).float()
        )
        around = looks.annulus(self.stamps)
        levels = np.concatenate([centre.numpy(), divisor.numpy()], axis=1)[:, :, 0, 0]
        out = {"row": self.index, "label": self.positive, "fwhm": self.fwhm, "sky_sigma": self.sky}
        out["meta"] = self.batch.meta.numpy()
        out |= {f"look {name}": see(self.noisy) for name, see in looks.FAMILIES.items()}
        out["look metadata"] = looks.metadata(self.table)[0]
        for name, see in looks.WITH_ARC.items():
            out[f"with arc {name}"], out[f"drawn {name}"] = see(self.stamps), see(self.drawn)
        for k, what in enumerate(("centre", "scale")):
            for i, band in enumerate(BANDS):
                out[f"level model {what} {band}"] = levels[:, 3 * k + i].astype(float)
                out[f"level annulus {what} {band}"] = around[:, 3 * k + i]
        for group in looks.CONDITIONS.values():
            out |= {f"condition {name}": self.table.column(name).to_numpy().astype(float) for name in group}
        out["pixels"] = _halved(np.arcsinh(self.noisy / scale)).astype(np.float16)
        return out

    def ask(
        self, asked: np.ndarray, varied: np.ndarray, sheet: list[dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Return the network's logits of the variants; adds pictures to `sheet`."""
        which = {
            "as it is": asked,
            "arc removed": asked & self.positive,
            "ring": varied & self.positive,
            "blob": varied & self.positive,
            "shuffled": varied,
        }
        logit, shown = {}, {}
        for variant, mask in which.items():
            at = np.flatnonzero(mask)
            images = np.stack([self._variant(variant, i) for i in at]) if len(at) else self.stamps[:0]
            logit[f"logit {variant}"] = np.full(len(mask), np.nan)
            if len(at):
                logit[f"logit {variant}"][at] = predict(self.model, _with_stamps(self.batch, at, images))
            shown[variant] = dict(zip(at.tolist(), images, strict=True))
        for i in np.flatnonzero(varied & self.positive)[: SHEET - len(sheet)]:
            sheet.append({v: shown[v][int(i)] for v in VARIANTS} | {"row": self.index[i]})
        return logit

    def _variant(self, name: str, i: int) -> np.ndarray:
        x, y = (float(self.table.column(c)[i].as_py()) for c in ("host_x", "host_y"))
        if name == "ring":
            return self.bare[i] + ring_of(self.arcs[i], x, y)
        if name == "blob":
            return self.bare[i] + blob_of(self.arcs[i], self.fwhm[i])
        if name == "shuffled":
            return shuffled(self.stamps[i], x, y, np.random.default_rng(int(self.index[i])))
        return self.bare[i] if name == "arc removed" else self.stamps[i]


def _halved(stamps: np.ndarray) -> np.ndarray:
    """Return means of 2 x 2 pixels."""
    n, bands, size, _ = stamps.shape
    return stamps.reshape(n, bands, size // 2, 2, size // 2, 2).mean(axis=(3, 5))


def _with_stamps(batch: Batch, rows: np.ndarray, stamps: np.ndarray) -> Batch:
    """Return some rows of a batch with other pixels."""
    at = torch.from_numpy(rows)
    picked = Batch(*(t[at] for t in batch))
    return picked._replace(stamps=torch.from_numpy(np.ascontiguousarray(stamps, np.float32)))
