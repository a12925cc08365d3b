"""From the loader to the device: upload, arcs of live injection, orientation.

On a GPU all of it runs in a stream of its own, beside the network's work on the batch before: what has to wait for the
device (the renderer asks it how many rays there are; small tables are copied) then waits for that stream alone, and
the network's stream never runs dry.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training.augment import draw_orientations, orient
from training.batch import Batch
from training.live import LiveBatch
from training.painter import Painter

_FIRST = -1  # priority of the stream: its kernels are short, and the network waits for them


@dataclass
class Delivery:
    """Brings batches onto a device, ready for the network.

    Attributes:
        device: where to.
        painter: draws arcs onto bare stamps, with live injection.
        augment: whether stamps are turned and mirrored.
        compiled: whether the network is: it is then told that batches differ in size, so that it is compiled once.
    """

    device: torch.device
    painter: Painter | None
    augment: bool
    compiled: bool

    def __post_init__(self) -> None:
        """Open the stream."""
        self._stream = torch.cuda.Stream(self.device, _FIRST) if self.device.type == "cuda" else None
        if self._stream is not None:  # the sources of live injection are on the device by then
            self._stream.wait_stream(torch.cuda.current_stream(self.device))

    def __call__(self, batch: Batch | LiveBatch, *where: object) -> Batch:
        """Return the batch on the device.

        Args:
            batch: of the loader.
            where: seed, epoch, rank and number of the batch in the epoch, which the orientations depend on.
        """
        if self._stream is None:
            ready = self._ready(batch, where)
        else:
            with torch.cuda.stream(self._stream):
                ready = self._ready(batch, where)
            network = torch.cuda.current_stream(self.device)
            network.wait_stream(self._stream)
            for tensor in ready:  # or their memory would be given away while the network still reads it
                tensor.record_stream(network)
        if self.compiled:
            for tensor in (ready.stamps, ready.sky_sigma, ready.meta):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)  # loaded when first asked for: it takes seconds
        return ready

    def _ready(self, batch: Batch | LiveBatch, where: tuple[object, ...]) -> Batch:
        if isinstance(batch, LiveBatch):
            assert self.painter is not None
            batch = self.painter.paint(batch)
        else:
            batch = batch.to(self.device)
        if not self.augment:
            return batch
        return batch._replace(stamps=orient(batch.stamps, draw_orientations(len(batch.label), *where)))
