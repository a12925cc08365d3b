"""The GPU twin of `darkhaloscope.lensing.render`: the same arguments, the same images, on any torch device.

Two steps. `prepare` runs on the host, in numpy with the library's own functions (checks, constants of every
row, PSF tables): a loader's worker can do it. `draw` runs on the device: rays are refined where the light needs
it, as in `lensing.engine`, but level by level for the whole batch instead of row by row; one ray tracing serves
all bands. `render` does both.

Float32 inside. Images are the same from run to run on a CPU; on CUDA the order of atomic additions differs,
which moves a pixel by rounding errors only. No matrix product is used, so TF32 settings change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from darkhaloscope.lensing.pixelised import SourceImages
from darkhaloscope.lensing.psf import Psf
from darkhaloscope.lensing.rays import pack_image, pack_sersic
from darkhaloscope.lensing.render import TOLERANCE, WRAP, Lattice, check_batch
from darkhaloscope.lensing.scene import Scene
from training.psf_torch import PsfPlan, blur, plan_psf
from training.trace_torch import SourceBank, far_flux, make_source, trace

REACH_STEP = 24  # pixels to which the PSF's reach is rounded up, so that survey seeing is one group
# Rows traced and blurred together, and rays in flight: what a CPU's cache holds; elsewhere enough to fill a GPU.
CPU_AT_ONCE, GPU_AT_ONCE = (32, 1 << 15), (8192, 1 << 24)


@dataclass(frozen=True)
class RenderedTensors:
    """Images of a batch on a device.

    Attributes:
        image: (n, band, y, x) float32, nmgy per pixel; zero where not ``ok``.
        magnification: (n,) float64 pre-PSF flux ratio over the whole plane; NaN where not ``ok``.
        ok: (n,) bool.
        reason: why a row is not ok, "" where it is.
        rays: number of rays and panel estimates of the batch.
    """

    image: Tensor
    magnification: Tensor
    ok: Tensor
    reason: tuple[str, ...]
    rays: int


@dataclass(frozen=True)
class Group:
    """Rows of a batch that share a lattice and the kind of source.

    Attributes:
        rows: (m,) their places in the batch.
        constants: (N_CONST, m) float32, see `lensing.rays`.
        image_of: (m,) the stamp of each row, -1 in a group of Sersic sources.
        flux: (m, band) float32, nmgy.
        psf: of the m rows.
        lattice: theirs.
        is_image: whether the sources are images.
    """

    rows: Tensor
    constants: Tensor
    image_of: Tensor
    flux: Tensor
    psf: PsfPlan
    lattice: Lattice
    is_image: bool

    def take(self, part: slice) -> Group:
        """Some of its rows."""
        by_row = {k: getattr(self, k)[part] for k in ("rows", "image_of", "flux")}
        return replace(self, **by_row, constants=self.constants[:, part], psf=self.psf.take(part))

    def each(self, change: Callable[[Tensor], Tensor]) -> Group:
        """The same with every tensor changed: put on a device, or into page-locked memory."""
        changed = {k: change(getattr(self, k)) for k in ("rows", "constants", "image_of", "flux")}
        return replace(self, **changed, psf=self.psf.each(change))


@dataclass(frozen=True)
class Prepared:
    """A checked batch, ready for `draw`; tensors on the CPU.

    Attributes:
        groups: the good rows, by lattice.
        ok: (n,) bool.
        reason: why a row is not ok, "" where it is.
        shape: (band, y, x) of a stamp.
    """

    groups: tuple[Group, ...]
    ok: Tensor
    reason: tuple[str, ...]
    shape: tuple[int, int, int]

    def each(self, change: Callable[[Tensor], Tensor]) -> Prepared:
        """The same with every tensor changed, see `Group.each`."""
        return replace(self, groups=tuple(g.each(change) for g in self.groups), ok=change(self.ok))


def render(
    scene: Scene,
    psf: Psf,
    shape: tuple[int, int] = (64, 64),
    pixel_scale: float = 0.262,
    sources: SourceImages | None = None,
    tolerance: float = TOLERANCE,
    device: torch.device | str = "cpu",
) -> RenderedTensors:
    """Render each row of a scene in every band; see `darkhaloscope.lensing.render.render`.

    Args:
        scene: n rows of lens and source parameters.
        psf: effective PSF of n rows (or one for all) and every band, or a kernel.
        shape: (y, x) of the stamps, pixels.
        pixel_scale: arcsec per pixel.
        sources: images to use instead of the Sersic sources.
        tolerance: quadrature error allowed to one panel, of the source's flux.
        device: where to draw.

    Returns:
        The images, on the device. A bad row is flagged, with its reason, and never stops the batch.

    Raises:
        ValueError: if the PSF or the sources do not fit the scene's rows and bands.
    """
    prepared = prepare(scene, psf, shape, pixel_scale, sources)
    bank = None if sources is None else SourceBank.of(sources.stamps, device)
    return draw(prepared, bank, tolerance, device)


def prepare(
    scene: Scene,
    psf: Psf,
    shape: tuple[int, int] = (64, 64),
    pixel_scale: float = 0.262,
    sources: SourceImages | None = None,
) -> Prepared:
    """Check a batch and compute, on the host, all that does not depend on the rays; arguments as of `render`.

    Raises:
        ValueError: if the PSF or the sources do not fit the scene's rows and bands.
    """
    n = len(scene)
    psf, reason, ok = check_batch(scene, psf, shape, pixel_scale, sources)
    image_of = np.full(n, -1) if sources is None else np.asarray(sources.index)
    reach = REACH_STEP * np.ceil(psf.reach(n, WRAP, pixel_scale)[ok] / REACH_STEP).astype(int)
    is_image = image_of >= 0
    groups = []
    for wide, image in sorted(set(zip(reach.tolist(), is_image[ok].tolist(), strict=True))):
        rows = np.flatnonzero(ok)[(reach == wide) & (is_image[ok] == image)]
        lattice = Lattice.around(shape, wide)
        part, origin = scene.take(rows), (-lattice.keep[1].start, -lattice.keep[0].start)
        if sources is not None and image:
            constants = pack_image(part, origin, pixel_scale, sources.units()[rows])
        else:
            constants = pack_sersic(part, origin, pixel_scale)
        groups.append(
            Group(
                rows=torch.from_numpy(rows),
                constants=torch.from_numpy(np.ascontiguousarray(constants.T)),
                image_of=torch.from_numpy(image_of[rows]),
                flux=torch.from_numpy(part.flux.astype(np.float32)),
                psf=plan_psf(psf.take(rows), len(rows), pixel_scale, lattice.size),
                lattice=lattice,
                is_image=image,
            )
        )
    return Prepared(tuple(groups), torch.from_numpy(ok), reason, (scene.n_band, *shape))


def draw(
    prepared: Prepared,
    bank: SourceBank | None = None,
    tolerance: float = TOLERANCE,
    device: torch.device | str = "cpu",
    fused: bool = False,
) -> RenderedTensors:
    """Trace, spread and blur a prepared batch on a device.

    Args:
        prepared: from `prepare`.
        bank: the image sources on the device; needed where a row uses one.
        tolerance: quadrature error allowed to one panel, of the source's flux.
        device: where to draw.
        fused: compile the ray formulas with `torch.compile`, once per process (about a minute): fewer and
            larger kernels, for devices where memory traffic is what limits.

    Returns:
        The images, on the device.

    Raises:
        ValueError: if a row uses an image source and there is no bank.
    """
    device = torch.device(device)
    if bank is None and any(group.is_image for group in prepared.groups):
        raise ValueError(
            "draw: the batch has rows with image sources and no bank; pass SourceBank.of(stamps, device)"
        )
    n = len(prepared.ok)
    image = torch.zeros((n, *prepared.shape), device=device)
    magnification = torch.full((n,), torch.nan, dtype=torch.float64, device=device)
    rows_at_once, rays_at_once = CPU_AT_ONCE if device.type == "cpu" else GPU_AT_ONCE
    rays = 0
    prepared = prepared.each(lambda t: t.to(device, non_blocking=True))
    for moved in prepared.groups:
        for start in range(0, len(moved.rows), rows_at_once):
            part = moved.take(slice(start, start + rows_at_once))
            source = make_source(part.image_of, bank if part.is_image else None, tolerance, fused)
            light, used = trace(part.constants, source, part.lattice, rays_at_once)
            far = 0.0 if part.is_image else far_flux(part.constants, part.lattice.stop)
            magnification[part.rows] = light.sum((1, 2), dtype=torch.float64) + far
            image[part.rows] = blur(light, part.psf, part.lattice.keep) * part.flux[:, :, None, None]
            rays += used
    return RenderedTensors(image, magnification, prepared.ok, prepared.reason, rays)
