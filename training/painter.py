"""Live injection on the device: draws the arcs that `live.LiveInjection` has planned onto batches of bare stamps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from darkhaloscope.sources.open import open_bank
from training.batch import LEFT_OUT, Batch
from training.live import Arcs, LiveBatch, LiveInjection
from training.noise_torch import normals
from training.render_torch import SourceBank, draw

ROUNDS = 4  # of arcs that stand out enough (min_arc_snr), before the row is left out


class Painter:
    """The device's side: draws planned arcs onto batches."""

    def __init__(self, live: LiveInjection, device: torch.device, fused: bool = False) -> None:
        """Put the source bank, where there is one, on the device.

        `fused`: compile the ray formulas. Uncompiled, a batch takes some 6,000 kernels, and the host tens of
        milliseconds to launch them, as long as a fast network's step.
        """
        self.live, self.device, self.fused = live, device, fused
        self.banks: list[SourceBank | None] = [None]
        if live.experiment.injection.source == "image":
            bank = open_bank(live.experiment.injection.source_bank)
            stacks = bank.layers(np.arange(len(bank.index)))
            self.banks = [SourceBank.of(stamps, device) for stamps, _ in stacks]

    def paint(self, planned: LiveBatch) -> Batch:
        """Return the batch on the device with its arcs.

        With `min_arc_snr`, fainter arcs are replaced by others of the same row, `ROUNDS` times at most. A row for which
        none was found is left out of the loss (label `LEFT_OUT`), bare: as a negative it would be one because its sky
        is bright or its seeing bad, and the network would learn that.
        """
        batch = planned.bare.to(self.device)
        stamps, label = batch.stamps.clone(), batch.label.clone()
        arcs, least = planned.arcs, self.live.experiment.training.min_arc_snr
        for turn in range(1, ROUNDS + 1):
            if not len(arcs.rows):
                break
            rows = arcs.rows.to(self.device, non_blocking=True)
            bare = stamps[rows].float()
            light, fine = self._light(arcs, bare)
            # exactly 0: no data, nothing to add to
            lit = (light != 0) & (bare != 0) & fine[:, None, None, None]
            # Back in the type of the shards: finer grain than a control's would tell an arc.
            stamps[rows] = torch.where(lit, bare + light, bare).to(stamps.dtype)
            label[rows] = torch.where(fine, 1.0, LEFT_OUT)
            if not least or turn == ROUNDS:
                break
            faint = arcs.rows.numpy()[~fine.cpu().numpy()]
            arcs = self.live.arcs(planned.bare, faint, planned.epoch, turn)
        return batch._replace(stamps=stamps, label=label, extra=batch.extra[:, :0])

    def _light(self, arcs: Arcs, bare: Tensor) -> tuple[Tensor, Tensor]:
        """Return arcs with their photon noise, (m, band, y, x), and which of them are to be shown, (m,) bool.

        `bare`: the stamps they are for. As in 4c an arc's SNR is against the noise of sky and host, its own left out.
        """
        stamps = self.live.experiment.stamps
        made = [
            draw(one, bank, device=self.device, fused=self.fused)
            for one, bank in zip(arcs.layers, self.banks, strict=True)
        ]
        light, fine = made[0].image, made[0].ok
        for more in made[1:]:
            light, fine = light + more.image, fine & more.ok
        arcs = arcs.each(lambda t: t.to(self.device, non_blocking=True))
        gain, sigma = (v[:, :, None, None] for v in (arcs.gain, arcs.sigma))
        own = light.clamp(min=0.0) / gain if stamps.poisson_noise else torch.zeros_like(light)
        if least := self.live.experiment.training.min_arc_snr:
            noise = sigma**2 + bare.clamp(min=0.0) / gain
            fine = fine & (arc_snr(light, noise, stamps.noise_correlation) >= least)
        if stamps.poisson_noise:
            light = light + torch.sqrt(own) * normals(arcs.keys, tuple(light.shape[1:]))
        return light, fine


def arc_snr(light: Tensor, variance: Tensor, correlation: float) -> Tensor:
    """Return the matched-filter SNR of arcs, bands in quadrature, (n,): `measure.measure_arc`'s, masks aside.

    Args:
        light: (n, band, y, x) nmgy/pixel, without noise.
        variance: the same shape, (nmgy/pixel)^2.
        correlation: factor by which uncorrelated noise would overstate it.
    """
    return torch.sqrt((light**2 / variance).sum((1, 2, 3))) / correlation
