"""Live injection: arcs drawn onto bare stamps while a network trains, others in every epoch.

Two steps, as in `render_torch`. `LiveInjection.plan` runs where batches are made (a loader's worker): which rows get
an arc, their lenses and sources by the experiment's prior, all that does not depend on rays. `Painter.paint` runs on
the device: rays, PSF, photon noise, and the sum.

A lens is a function of (seed, epoch, row), a row being its task_id: the same in any batch, order and number of
workers. Which hosts get an arc is the manifest's own rule (`hosts.is_control_host`): unpaired, a host is a control in
all epochs or in none; paired, it takes turns. What a stamp of stage 4c holds is the same but for two things: the gain
is taken from the stamp's own sky (`noise.sky_gain`, 4c's fallback) and the noise is another draw.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from training.noise_torch import normals
from training.render_torch import Prepared, SourceBank, draw, prepare

HOST_COLUMNS = (
    "host_x", "host_y", "ebv", "mag_r", "mag_z", "shape_e1", "shape_e2", "z_host",
    *(f"{name}_{b}" for name in ("psfsize", "sky_sigma") for b in BANDS),
)  # fmt: skip
"""Columns of the stamps table that an arc and its noise depend on."""
DRAWS = 32  # of a lens that is resolved enough (min_theta_over_psf), before the last is taken
ROUNDS = 4  # of arcs that stand out enough (min_arc_snr), before the row is shown without one
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
        """The same with its pixels in page-locked memory, as `DataLoader(pin_memory=True)` asks."""
        return replace(self, bare=Batch(*(t.pin_memory() for t in self.bare)))


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


class Painter:
    """The device's side: draws planned arcs onto batches."""

    def __init__(self, live: LiveInjection, device: torch.device) -> None:
        """Put the source bank, where there is one, on the device."""
        self.live, self.device = live, device
        self.banks: list[SourceBank | None] = [None]
        if live.experiment.injection.source == "image":
            bank = open_bank(live.experiment.injection.source_bank)
            stacks = bank.layers(np.arange(len(bank.index)))
            self.banks = [SourceBank.of(stamps, device) for stamps, _ in stacks]

    def paint(self, planned: LiveBatch) -> Batch:
        """Return the batch on the device with its arcs; label 0 where none could be drawn that stands out.

        With `min_arc_snr`, fainter arcs are replaced by others of the same row, `ROUNDS` times at most.
        """
        batch = planned.bare.to(self.device)
        stamps, label = batch.stamps.clone(), batch.label.clone()
        arcs, least = planned.arcs, self.live.experiment.training.min_arc_snr
        for turn in range(1, ROUNDS + 1):
            if not len(arcs.rows):
                break
            light, fine = self._light(arcs)
            rows = arcs.rows.to(self.device)
            bare = stamps[rows].float()
            lit = (
                (light != 0) & (bare != 0) & fine[:, None, None, None]
            )  # exactly 0: no data, nothing to add to
            # Back in the type of the shards: finer grain than a control's would tell an arc.
            stamps[rows] = torch.where(lit, bare + light, bare).to(stamps.dtype)
            label[rows] = fine.float()
            if not least or turn == ROUNDS:
                break
            faint = arcs.rows.numpy()[~fine.cpu().numpy()]
            arcs = self.live.arcs(planned.bare, faint, planned.epoch, turn)
        return batch._replace(stamps=stamps, label=label, extra=batch.extra[:, :0])

    def _light(self, arcs: Arcs) -> tuple[Tensor, Tensor]:
        """Return arcs with their photon noise, (m, band, y, x), and which of them are to be shown, (m,) bool."""
        stamps = self.live.experiment.stamps
        made = [
            draw(one, bank, device=self.device) for one, bank in zip(arcs.layers, self.banks, strict=True)
        ]
        light, fine = made[0].image, made[0].ok
        for more in made[1:]:
            light, fine = light + more.image, fine & more.ok
        gain, sigma = (v.to(self.device)[:, :, None, None] for v in (arcs.gain, arcs.sigma))
        own = light.clamp(min=0.0) / gain if stamps.poisson_noise else torch.zeros_like(light)
        if least := self.live.experiment.training.min_arc_snr:
            snr = torch.sqrt((light**2 / (sigma**2 + own)).sum((1, 2, 3))) / stamps.noise_correlation
            fine = fine & (snr >= least)
        if stamps.poisson_noise:
            light = light + torch.sqrt(own) * normals(arcs.keys.to(self.device), tuple(light.shape[1:]))
        return light, fine
