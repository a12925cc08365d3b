"""The torch twin draws what the CPU renderer draws; its formulas are the library's."""

import numpy as np
import pytest
import torch
from draws import draw, relative_rms, scene_of
from test_pixelised import bank_of

from darkhaloscope.lensing import panels, rays, spread
from darkhaloscope.lensing.deflectors import sie_deflection, to_source_plane
from darkhaloscope.lensing.light import sersic_surface_brightness
from darkhaloscope.lensing.pixelised import SourceImages, unit_stamps
from darkhaloscope.lensing.psf import Psf, pixel_kernel, psf_transform
from darkhaloscope.lensing.render import render as cpu_render
from training import psf_torch, rays_torch, render_torch, trace_torch
from training.render_torch import SourceBank, prepare, render
from training.render_torch import draw as draw_prepared

EASY_RMS, REST_RMS, MAGNIFICATION = 1e-3, 5e-3, 1e-3  # 95th percentiles of the difference
BANDS = np.array([1.2, 1.0, 0.9])  # FWHM of each band over the row's


def parts_of(rows, sources=None):
    """Scene, PSF and sources of the rows with a Gaussian PSF, then of those with a Moffat."""
    scene = scene_of(rows, flux=2.0, n_band=len(BANDS))
    for gaussian in (True, False):
        at = np.flatnonzero(rows["gaussian"] == gaussian)
        fwhm = rows["fwhm"][at, None] * BANDS
        psf = Psf.gaussian(fwhm) if gaussian else Psf.moffat(fwhm, rows["beta"][at])
        yield at, scene.take(at), psf, None if sources is None else sources.take(at)


def differences(rows, sources=None, twin=render):
    """Relative rms (row, band) and relative difference of magnification (row,), twin against CPU."""
    rms, magnification = np.zeros((len(rows["fwhm"]), len(BANDS))), np.zeros(len(rows["fwhm"]))
    for at, scene, psf, chosen in parts_of(rows, sources):
        want = cpu_render(scene, psf, sources=chosen)
        made = twin(scene, psf, sources=chosen)
        assert made.ok.all() and want.ok.all()
        rms[at] = relative_rms(made.image.cpu().numpy(), want.image)
        magnification[at] = made.magnification.cpu().numpy() / want.magnification - 1
    return rms, np.abs(magnification)


def check(n, seed, **options):
    rows = draw(n, seed)
    rms, magnification = differences(rows, **options)
    easy = (rows["src_n"] <= 2) & (rows["src_reff_arcsec"] >= 0.08) & (rows["fwhm"] >= 0.8)
    for name, group in {"easy": easy, "rest": ~easy}.items():
        print(name, group.sum(), "rms p50, p95, max", np.percentile(rms[group], [50, 95, 100]))
    assert np.percentile(rms[easy], 95) <= EASY_RMS
    assert np.percentile(rms[~easy], 95) <= REST_RMS
    assert np.percentile(magnification, 95) <= MAGNIFICATION


def test_random_lenses_agree_with_the_cpu_renderer():
    check(30, seed=31)


@pytest.mark.slow
def test_a_thousand_random_lenses_agree_with_the_cpu_renderer():
    check(1000, seed=32)


def test_image_sources_agree_and_mix_with_sersic_sources():
    rows, bank = draw(40, seed=33), bank_of(40, seed=34)
    index = np.where(np.arange(40) % 4 == 0, -1, np.arange(40))
    mixed = SourceImages(bank.stamps, index, bank.pixel_scale_arcsec, bank.flip)
    rms, magnification = differences(rows, mixed)
    assert np.percentile(rms, 95) <= EASY_RMS
    assert np.percentile(magnification, 95) <= MAGNIFICATION


@pytest.mark.slow  # a minute of compiling
def test_fused_agrees_with_the_cpu_renderer():
    def fused(scene, psf, sources):
        return draw_prepared(prepare(scene, psf, sources=sources), fused=True)

    check(30, seed=35, twin=fused)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("fused", [False, True])
def test_cuda_agrees_with_the_cpu_renderer_under_tf32(fused, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)

    def on_gpu(scene, psf, sources):
        bank = None if sources is None else SourceBank.of(sources.stamps, "cuda")
        return draw_prepared(prepare(scene, psf, sources=sources), bank, device="cuda", fused=fused)

    check(300, seed=36, twin=on_gpu)
    rms, _ = differences(draw(40, seed=33), bank_of(40, seed=34), on_gpu)
    assert np.percentile(rms, 95) <= EASY_RMS


def test_a_kernel_psf_agrees():
    scene = scene_of(draw(8, seed=37), n_band=2)
    kernel = np.stack([pixel_kernel(1.1, "moffat", 2.7, 41), pixel_kernel(0.9, "gaussian", size=41)])
    kernel[:, 22, 20] *= 1.5  # lopsided: a kernel turned by mistake would show
    psf = Psf.from_kernel(kernel)
    rms = relative_rms(render(scene, psf).image.numpy(), cpu_render(scene, psf).image)
    assert rms.max() <= EASY_RMS


@pytest.mark.parametrize("shape", [(61, 50), (48, 63)])
def test_any_shape_and_pixel_scale_and_no_lens_agree(shape):
    rows = draw(6, seed=38)
    rows["x_lens"], rows["y_lens"] = rows["x_lens"] - 9.0, rows["y_lens"] - 4.0
    rows["theta_e_arcsec"][:2], rows["shear"][:2] = 0.0, 0.0
    scene, psf = scene_of(rows), Psf.moffat(np.full((6, 1), 1.0), 3.0)
    options = {"shape": shape, "pixel_scale": 0.3}
    made, want = render(scene, psf, **options), cpu_render(scene, psf, **options)
    assert made.image.shape == (6, 1, *shape)
    assert relative_rms(made.image.numpy(), want.image).max() <= EASY_RMS
    assert made.magnification[:2].numpy() == pytest.approx(1.0, abs=3e-3)


def test_light_ends_where_it_does_on_the_cpu():
    rows = draw(2, seed=38)
    rows.update(theta_e_arcsec=np.zeros(2), shear=np.zeros(2), src_x_arcsec=np.zeros(2))
    rows["src_y_arcsec"] = (np.array([71.5, 72.5]) - rows["y_lens"]) * 0.262  # margin ends at pixel 71
    scene, psf = scene_of(rows), Psf.gaussian([[2.4]])  # which does not come round the lattice
    made, want = (f(scene, psf, shape=(61, 50)) for f in (render, cpu_render))
    assert np.abs(made.image.numpy() - want.image).max() < 1e-7


def test_bad_rows_are_flagged_as_on_the_cpu_and_harm_no_other():
    rows = draw(5, seed=39)
    good = render(scene_of(rows), Psf.gaussian([[1.2]]))
    rows["lens_q"][1], rows["src_n"][3] = 1.5, np.nan
    psf = Psf.gaussian([[1.2], [1.2], [1.2], [1.2], [np.nan]])
    made, want = render(scene_of(rows), psf), cpu_render(scene_of(rows), psf)
    assert made.reason == want.reason
    assert made.ok.tolist() == [True, False, True, False, False]
    assert (made.image[[1, 3, 4]] == 0).all() and made.magnification[[1, 3, 4]].isnan().all()
    assert relative_rms(made.image[[0, 2]].numpy(), good.image[[0, 2]].numpy()).max() < 1e-6


def test_a_batch_of_bad_rows_only_is_zero():
    rows = draw(2, seed=40)
    rows["theta_e_arcsec"][:] = -1.0
    made = render(scene_of(rows), Psf.gaussian([[1.2]]))
    assert not made.ok.any() and (made.image == 0).all()


def test_a_row_does_not_depend_on_its_batch_nor_on_the_chunks(monkeypatch):
    rows = draw(12, seed=41)
    rows["fwhm"][::2] = 2.4
    scene, psf = scene_of(rows), Psf.moffat(rows["fwhm"][:, None], 2.6)
    whole = render(scene, psf).image
    alone = torch.cat([render(scene.take([i]), psf.take([i])).image for i in range(12)])
    monkeypatch.setattr(render_torch, "CPU_AT_ONCE", (5, 300))
    chunked = render(scene, psf).image
    for other in (alone, chunked):
        assert relative_rms(other.numpy(), whole.numpy()).max() < 1e-5


def test_misuse_is_refused_with_the_reason():
    rows, bank = draw(3, seed=42), bank_of(3, seed=43)
    with pytest.raises(ValueError, match="rows"):
        render(scene_of(rows), Psf.gaussian(np.ones((2, 1))))
    with pytest.raises(ValueError, match="sources has 3 rows"):
        render(scene_of(draw(4, seed=42)), Psf.gaussian([[1.0]]), sources=bank)
    with pytest.raises(ValueError, match="bank"):
        draw_prepared(prepare(scene_of(rows), Psf.gaussian([[1.0]]), sources=bank))


# Function by function: the twin restates these formulas, the library's are the truth.


@pytest.fixture
def points():
    return np.random.default_rng(44).uniform(-4.0, 4.0, (2, 2000)).astype(np.float32)


@pytest.mark.parametrize("q", [0.2, 0.5, 0.999, 1.0])
def test_deflection_is_the_librarys(points, q):
    x, y = (torch.from_numpy(v) for v in points)
    scalars = (torch.tensor(v, dtype=torch.float32) for v in (2 * 1.3 * np.sqrt(q), q, 1 - q**2))
    made = rays_torch.sie_deflection(x, y, *scalars)
    want = sie_deflection(*points.astype(float), 1.3, q, 0.0)
    for a, b in zip(made[:2], want, strict=True):
        assert a.numpy() == pytest.approx(b, abs=2e-6)


def test_sersic_rays_are_the_librarys_brightness(points):
    scene, x, y = scene_of(draw(20, seed=45)), *(torch.from_numpy(5 * v + 32) for v in points)
    c = torch.from_numpy(rays.pack_sersic(scene, (0.0, 0.0), 0.262).T.copy())[:, :, None]
    made = rays_torch.sersic_rays(x, y, c).numpy()
    for i in range(20):
        s = scene.take([i])
        arcsec = [(v.numpy().astype(float) - o) * 0.262 for v, o in ((x, s.x_lens), (y, s.y_lens))]
        beta = to_source_plane(*arcsec, s.theta_e_arcsec, s.lens_q, s.lens_phi_rad, s.shear, s.shear_phi_rad)
        shape = (s.src_reff_arcsec, s.src_q, s.src_phi_rad, s.src_n)
        want = sersic_surface_brightness(beta[0] - s.src_x_arcsec, beta[1] - s.src_y_arcsec, 1.0, *shape)
        assert made[i] == pytest.approx(want * 0.262**2, rel=2e-3, abs=1e-6 * want.max())


def squares_of(points, size):
    """Corners of 2,000 squares near the deflector and their edge as a tensor."""
    x, y = (5 * points + 32).astype(np.float32)
    return x, y, torch.tensor(size, dtype=torch.float32)


@pytest.mark.parametrize("size", [1.0, 0.125])
def test_panels_get_the_librarys_rules(points, size):
    scene, (x, y, edge) = scene_of(draw(10, seed=46)), squares_of(points, size)
    packed = rays.pack_sersic(scene, (0.0, 0.0), 0.262)
    for c in packed:
        want = np.empty(len(x), np.float32)
        panels.choose_sersic(x, y, len(x), np.float32(size), np.float32(1), c, np.float32(1e-4), want)
        made = rays_torch.choose_sersic(
            torch.from_numpy(x), torch.from_numpy(y), edge, 1, torch.from_numpy(c)[:, None], 1e-4
        )
        want = np.where(want < 0, rays_torch.DARK, want)
        assert (made.numpy() == want).mean() > 0.995  # the rest sits on a threshold


def test_image_rays_and_rules_are_the_librarys(points):
    scene, bank, (x, y, edge) = scene_of(draw(3, seed=47)), bank_of(3, seed=48), squares_of(points, 1.0)
    pixels, envelopes = unit_stamps(bank.stamps)
    packed = rays.pack_image(scene, (0.0, 0.0), 0.262, bank.units())
    tensors = [torch.from_numpy(v) for v in (x, y)]
    for i, c in enumerate(packed):
        image, c_made = torch.full((len(x),), i), torch.from_numpy(c)[:, None]
        want, code = np.empty(len(x), np.float32), np.empty(len(x), np.float32)
        rays.image_rays(x.copy(), y.copy(), len(x), c, pixels[i], want)  # it uses its positions up
        made = rays_torch.image_rays(*tensors, c_made, image, torch.from_numpy(pixels))
        assert want.max() > 0
        assert made.numpy() == pytest.approx(want, abs=1e-3 * float(want.max()))
        one, tolerance = np.float32(1), np.float32(1e-4)
        panels.choose_image(x.copy(), y.copy(), len(x), one, one, c, envelopes[i], tolerance, code)
        chosen = rays_torch.choose_image(*tensors, edge, 1, c_made, 1e-4, image, torch.from_numpy(envelopes))
        assert (chosen.numpy() == np.where(code < 0, rays_torch.DARK, code)).mean() > 0.995


def test_spline_is_the_librarys():
    t = np.linspace(0.0, 1.0, 11, dtype=np.float32)
    made = trace_torch.spline(torch.from_numpy(t)).numpy()
    want = np.array([spread._spline(v, np.float32(1)) for v in t])
    assert made == pytest.approx(want, abs=1e-7)


def test_moffat_factor_is_the_librarys_transform():
    psf = Psf.moffat([[0.9, 1.3], [2.0, 0.7]], [2.5, 4.0])
    plan = psf_torch.plan_psf(psf, 2, 0.262, (96, 96))
    k = np.linspace(0.0, 0.7, 50)
    made = psf_torch.moffat_factor(
        torch.from_numpy(k.astype(np.float32))[None], plan.width, plan.table, plan.table_of
    )
    want = psf_transform(k / 0.262, psf.fwhm_arcsec[:, :, None], "moffat", psf.beta[:, None, None])
    assert made[:, :, 0].numpy() == pytest.approx(want, abs=3e-5)
