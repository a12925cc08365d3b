"""Image sources: surface brightness per arcsec^2, bilinear, turned and mirrored as said."""

import numpy as np
import pytest
from draws import clumpy, draw, relative_rms, render_rows, truth_of

from darkhaloscope.lensing.pixelised import SourceImages
from darkhaloscope.lensing.psf import Psf
from darkhaloscope.lensing.render import render
from darkhaloscope.lensing.scene import Scene

RMS = 1.5e-3  # 95th percentile


def bank_of(n, seed):
    rng = np.random.default_rng(seed)
    return SourceImages(clumpy(n, seed), np.arange(n), rng.uniform(0.02, 0.04, n), rng.random(n) < 0.5)


def truth(rows, bank, i):
    stamp, scale = bank.stamps[i].astype(float), float(bank.pixel_scale_arcsec[i])
    brightness = stamp / (stamp.sum() * scale**2)
    return truth_of(rows, i, pixels=brightness, src_scale=scale, flip=-1.0 if bank.flip[i] else 1.0)


def check(n, seed):
    rows, bank = draw(n, seed), bank_of(n, seed)
    image, magnification = render_rows(rows, sources=bank)
    reference, region = (np.array(v) for v in zip(*(truth(rows, bank, i) for i in range(n)), strict=True))
    rms = relative_rms(image, reference)
    print("images", np.percentile(rms, [50, 95, 99, 100]))
    assert np.percentile(rms, 95) <= RMS
    assert np.abs(magnification / region - 1).max() < 0.01


def test_random_lensed_images_are_rendered_to_a_part_in_a_thousand():
    check(3, seed=5)


@pytest.mark.slow
def test_two_hundred_lensed_images_are_rendered_to_a_part_in_a_thousand():
    check(200, seed=6)


def unlensed(n=1, **changes):
    fields = {
        "x_lens": 32.0, "y_lens": 32.0, "theta_e_arcsec": 0.0, "lens_q": 1.0, "lens_phi_rad": 0.0, "shear": 0.0,
        "shear_phi_rad": 0.0, "src_x_arcsec": 0.0, "src_y_arcsec": 0.0, "src_reff_arcsec": 0.2, "src_q": 1.0,
        "src_phi_rad": 0.0, "src_n": 1.0, "flux": np.full((n, 1), 4.0),
    }  # fmt: skip
    return Scene(**{**fields, **changes})


def dot(x, y, size=31):
    stamp = np.zeros((1, size, size), np.float32)
    stamp[0, y, x] = 1.0
    return stamp


def centroid(image):
    y, x = np.indices(image.shape)
    return (image * x).sum() / image.sum(), (image * y).sum() / image.sum()


@pytest.mark.parametrize("scale", [0.03, 0.1])
def test_the_flux_is_the_scenes_whatever_the_stamps_unit_and_pixel_scale(scale):
    for unit in (1.0, 1e3):
        made = render(unlensed(), Psf.gaussian([[1.0]]), sources=SourceImages(unit * clumpy(1, 1), 0, scale))
        assert made.image.sum() == pytest.approx(4.0, rel=2e-3)
        assert made.magnification[0] == pytest.approx(1.0, rel=2e-3)


def test_the_stamp_is_turned_counter_clockwise_after_it_is_mirrored():
    stamp = dot(25, 15)  # 10 pixels along +x of the middle
    step = 10 * 0.1 / 0.262
    for phi, flip, expected in [
        (0.0, False, (32 + step, 32)),
        (np.pi / 2, False, (32, 32 + step)),
        (0.0, True, (32 - step, 32)),
        (np.pi / 2, True, (32, 32 - step)),
    ]:
        made = render(
            unlensed(src_phi_rad=phi), Psf.gaussian([[1.0]]), sources=SourceImages(stamp, 0, 0.1, flip)
        )
        assert centroid(made.image[0, 0]) == pytest.approx(expected, abs=0.01)


def test_rows_may_mix_images_and_sersic_sources():
    scene = unlensed(2, src_reff_arcsec=0.3)
    mixed = render(scene, Psf.gaussian([[1.0]]), sources=SourceImages(clumpy(1, 1), [-1, 0], 0.03))
    plain = render(scene, Psf.gaussian([[1.0]]))
    assert np.array_equal(mixed.image[0], plain.image[0])
    assert not np.array_equal(mixed.image[1], plain.image[1])


def test_empty_and_corrupt_stamps_are_refused_before_any_work():
    for bad in (np.zeros((2, 9, 9)), np.full((2, 9, 9), np.nan), -np.ones((2, 9, 9))):
        with pytest.raises(ValueError, match="source stamp 0 sums to"):
            SourceImages(bad, [0, 1], 0.03)
    with pytest.raises(ValueError, match="expected \\(stamp, y, x\\)"):
        SourceImages(np.ones((9, 9)), [0], 0.03)


def test_a_row_with_a_bad_index_or_scale_is_flagged_and_the_others_are_drawn():
    bank = SourceImages(clumpy(1, 1), [0, 3, 0], [0.03, 0.03, np.nan])
    made = render(unlensed(3), Psf.gaussian([[1.0]]), sources=bank)
    assert made.ok.tolist() == [True, False, False]
    assert "row 1: source index is 3" in made.reason[1]
    assert "row 2: source pixel_scale_arcsec is nan" in made.reason[2]


def test_sersic_parameters_of_image_rows_are_not_looked_at():
    made = render(unlensed(src_n=np.nan), Psf.gaussian([[1.0]]), sources=SourceImages(clumpy(1, 1), 0, 0.03))
    assert made.ok.all() and made.image.sum() == pytest.approx(4.0, rel=1e-3)
