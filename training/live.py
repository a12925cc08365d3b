"""Live injection: arcs drawn onto bare stamps while a network trains, others in every epoch.

Two steps, as in `render_torch`. `LiveInjection.plan`, here, runs where batches are made (a loader's worker): which rows
get an arc, their lenses and sources by the experiment's prior, all that does not depend on rays. `painter.Painter` runs
on the device: rays, PSF, photon noise, and the sum.

A lens is a function of (seed, epoch, row), a row being its task_id: the same in any batch, order and number of
workers. Which hosts get an arc is the manifest's own rule (`hosts.is_control_host`): unpaired, a host is a control in
all epochs or in none; paired, it takes turns. What a stamp of stage 4c holds is the same but for two things: the gain
is taken from the stamp's own sky (`noise.sky_gain`, 4c's fallback) and the noise is another draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from darkhaloscope.draws import Keys, digest, digests
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.arcs import image_layers, scene_of
from darkhaloscope.injection.layout import draw_injections
from darkhaloscope.injection.noise import sky_gain
from darkhaloscope.injection.psfs import load_kernels, model_fwhm, psf_of
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC, SAMPLES
from darkhaloscope.sources.bank import Bank
from darkhaloscope.sources.draw import mirrored
from darkhaloscope.sources.open import open_bank
from darkhaloscope.survey.extinction import extinction
from training.batch import Batch
from training.render_torch import Prepared, prepare

HOST_COLUMNS = (
    "host_x", "host_y", "ebv", "mag_r", "mag_z", "shape_e1", "shape_e2", "z_host",
    *(f"{name}_{b}" for name in ("psfsize", "sky_sigma") for b in BANDS),
)  # fmt: skip
"""Columns of the stamps table that an arc and its noise depend on."""
DRAWS = 32  # of a lens that is resolved enough (min_theta_over_psf), before the last is taken
_SYNTHETIC, _RANDOM = SAMPLES.index("synthetic_positive"), SAMPLES.index("random_negative")

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Arcs:
    """What to draw onto some rows of a batch; tensors on the CPU.

    Attributes:
        rows: (m,) their places in the batch.
        layers: the arcs, one `Prepared` a layer of their sources.
        gain: (m, band) float32 electrons per nmgy.
        sigma: (m, band) float32 noise of the sky, nmgy/pixel.
        keys: (m,) int64, of their noise.
    """

    rows: Tensor
    layers: tuple[Prepared, ...]
    gain: Tensor
    sigma: Tensor
    keys: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> Arcs:
        """The same with every tensor changed: put on a device, or into page-locked memory."""
        changed = {k: change(getattr(self, k)) for k in ("rows", "gain", "sigma", "keys")}
        return replace(self, layers=tuple(one.each(change) for one in self.layers), **changed)


@dataclass(frozen=True)
class LiveBatch:
    """A batch of bare stamps, and the arcs that are still to be drawn onto it.

    Attributes:
        bare: the rows; `extra` holds `HOST_COLUMNS`, and `label` is 1 where an arc is to come.
        arcs: first round.
        epoch: number of the epoch.
    """

    bare: Batch
    arcs: Arcs
    epoch: int

    @property
    def label(self) -> Tensor:
        """(n,) of the rows."""
        return self.bare.label

    @property
    def task_id(self) -> Tensor:
        """(n, 16) of the rows."""
        return self.bare.task_id

    def pin_memory(self) -> LiveBatch:
        """The same in page-locked memory, as `DataLoader(pin_memory=True)` asks.

        All of it: a tensor left as the worker sent it holds an open file until its batch has been trained on.
        """
        return LiveBatch(Batch(*map(_pinned, self.bare)), self.arcs.each(_pinned), self.epoch)


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory() if tensor.numel() else tensor


class LiveInjection:
    """The host's side: plans arcs. Holds no pixels, so that it can be sent to a worker."""

    def __init__(self, experiment: Experiment, size: int) -> None:
        """Take the experiment's prior and the side of a stamp, pixels."""
        self.experiment, self.size = experiment, size
        self.kernels = load_kernels(experiment)

    @cached_property
    def shares(self) -> list[np.ndarray]:
        """Each layer's share of the light of every galaxy of the bank, (galaxy, band)."""
        return [share for _, share in self._bank.layers(np.arange(len(self._bank.index)))]

    @property
    def _bank(self) -> Bank:
        return open_bank(self.experiment.injection.source_bank)

    @property
    def _is_image(self) -> bool:
        return self.experiment.injection.source == "image"

    def classed(self, batch: Batch, kind: np.ndarray, epoch: int) -> Batch:
        """Return the batch with label 1 for rows that get an arc in this epoch.

        Args:
            batch: bare stamps, labelled as they are.
            kind: (n,) of the rows, index into SAMPLES, from `selection.Selection`.
            epoch: number of the epoch.
        """
        turned = self.experiment.injection.controls == "paired" and epoch % 2
        lit = torch.from_numpy(kind == (_RANDOM if turned else _SYNTHETIC))
        label = torch.where(lit, 1.0, batch.label)
        return batch._replace(label=label, extra=torch.cat([batch.extra, lit[:, None].double()], 1))

    def plan(self, batch: Batch, epoch: int) -> LiveBatch:
        """Return the batch with the arcs to draw onto it."""
        return LiveBatch(batch, self.arcs(batch, np.flatnonzero(batch.extra[:, -1].numpy()), epoch), epoch)

    def arcs(self, batch: Batch, rows: np.ndarray, epoch: int, turn: int = 0) -> Arcs:
        """Plan the arcs of some rows.

        Args:
            batch: bare stamps.
            rows: (m,) which of them.
            epoch: number of the epoch.
            turn: another number, other lenses.
        """
        host = dict(zip(HOST_COLUMNS, batch.extra[rows].numpy().T, strict=False))
        columns, keys = self.draw(host, batch.task_id[rows].numpy(), epoch, turn)
        sigma = np.stack([host[f"sky_sigma_{b}"] for b in BANDS], axis=1)
        gain = np.stack([sky_gain(sigma[:, i] ** 2, b) for i, b in enumerate(BANDS)], axis=1)
        return Arcs(
            torch.from_numpy(rows), self.prepare(columns, mirrored(keys)),
            *(torch.from_numpy(v.astype(np.float32)) for v in (gain, sigma)),
            torch.from_numpy(keys[:, 1].view(np.int64).copy()),
        )  # fmt: skip

    def draw(
        self, host: Mapping[str, np.ndarray], task_id: np.ndarray, epoch: int, turn: int
    ) -> tuple[Columns, Keys]:
        """Draw lens and source of each row.

        Args:
            host: `HOST_COLUMNS`, (m,).
            task_id: (m, 16) uint8.
            epoch: number of the epoch.
            turn: another number, other lenses.

        Returns:
            `arcs.ARC_COLUMNS` but for the last three, and the keys of the draws, (m, 2).
        """
        columns, keys = self._drawn(host, task_id, epoch, turn * DRAWS)
        least = self.experiment.training.min_theta_over_psf * host["psfsize_r"]
        for number in range(1, DRAWS):
            again = np.flatnonzero(columns["theta_e_arcsec"] < least)
            if not len(again):
                break
            some = {n: v[again] for n, v in host.items()}
            new, new_keys = self._drawn(some, task_id[again], epoch, turn * DRAWS + number)
            for name, values in new.items():
                columns[name][again] = values
            keys[again] = new_keys
        return columns, keys

    def _drawn(
        self, host: Mapping[str, np.ndarray], task_id: np.ndarray, epoch: int, number: int
    ) -> tuple[Columns, Keys]:
        ids = np.ascontiguousarray(task_id).view(np.int64)
        keys = digests(digest("live injection", self.experiment.seed, epoch, number), ids[:, 0], ids[:, 1])
        light = {n: host[n] for n in ("shape_e1", "shape_e2", "z_host")}
        light |= {f"mag_dered_{b}": host[f"mag_{b}"] - extinction(host["ebv"], b) for b in "rz"}
        sources = self._bank.index if self._is_image else None
        split = np.full(len(keys), "train", object)
        columns = draw_injections(keys, light, split, self.experiment, sources)
        return columns | {n: host[n] for n in ("host_x", "host_y", "ebv")} | self._fwhm(host), keys

    def _fwhm(self, host: Mapping[str, np.ndarray]) -> Columns:
        """Return the widths of the experiment's PSF model at each host; a kernel needs none."""
        if self.kernels is not None:
            return {}
        fwhm = model_fwhm(np.stack([host[f"psfsize_{b}"] for b in BANDS], axis=1), self.experiment)
        return {f"fwhm_{b}": fwhm[:, i] for i, b in enumerate(BANDS)}

    def prepare(self, columns: Mapping[str, np.ndarray], flip: np.ndarray) -> tuple[Prepared, ...]:
        """Return the arcs of rows with `arcs.ARC_COLUMNS`, ready for the device; as `arcs.render_rows` draws them."""
        fwhm = np.zeros((len(flip), len(BANDS)))
        if self.kernels is None:
            fwhm = np.stack([np.asarray(columns[f"fwhm_{b}"], np.float64) for b in BANDS], axis=1)
        psf, scene = psf_of(fwhm, self.experiment, self.kernels), scene_of(columns)
        layers: list = [(None, np.ones((len(flip), len(BANDS))))]
        if self._is_image:
            # The pixels are on the device; of the stacks only their number is asked here.
            stacks = [(np.ones((len(share), 1, 1), np.float32), share) for share in self.shares]
            source_id = np.asarray(columns["source_id"], np.int64)
            layers = image_layers(columns, source_id, stacks, self._bank.index, flip)
        shape = (self.size, self.size)
        return tuple(
            prepare(replace(scene, flux=scene.flux * share), psf, shape, PIXEL_SCALE_ARCSEC, images)
            for images, share in layers
        )
