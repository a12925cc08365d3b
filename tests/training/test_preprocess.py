import dataclasses

import numpy as np
import pytest
import torch

from darkhaloscope.records import STAMPS
from training.augment import draw_orientations, orient
from training.preprocess import (
    Preprocessing,
    PreprocessingError,
    check_metadata_columns,
    from_dict,
    normalise,
    standardise_metadata,
)

SKY = torch.tensor([[0.002, 0.003, 0.009], [0.004, 0.003, 0.006]])


@pytest.fixture
def stamps() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(0.01, 0.005, (2, 3, 64, 64)).astype(np.float32))


def robust(pixels: np.ndarray) -> tuple[float, float]:
    def lower_median(values: np.ndarray) -> float:
        return float(np.sort(values)[(len(values) - 1) // 2])

    centre = lower_median(pixels)
    return centre, 1.4826 * lower_median(np.abs(pixels - centre))


@pytest.mark.parametrize("method", ["full", "outer"])
def test_robust_normalisation_is_minus_median_over_mad_of_its_pixels(stamps, method):
    found = normalise(Preprocessing(method), stamps).numpy()
    y, x = np.mgrid[:64, :64] - 31.5
    radius = np.hypot(x, y) / 32
    chosen = np.full((64, 64), True) if method == "full" else (radius >= 0.625) & (radius < 1)
    for row in range(2):
        for band in range(3):
            image = stamps[row, band].numpy()
            centre, spread = robust(image[chosen])
            np.testing.assert_allclose(found[row, band], (image - centre) / spread, rtol=1e-4, atol=1e-5)


def test_an_arc_moves_the_scale_of_full_and_not_that_of_outer(stamps):
    with_arc = stamps.clone()
    with_arc[:, :, 20:44, 20:44] += 1.0
    for method, moved in (("full", True), ("outer", False)):
        before, after = (normalise(Preprocessing(method), s)[:, :, :8, :8] for s in (stamps, with_arc))
        assert torch.equal(before, after) is not moved


def test_sky_asinh_is_linear_at_the_sky_and_logarithmic_above(stamps):
    reference = torch.tensor(Preprocessing().sky_reference)
    faint, bright = (normalise(Preprocessing(), f * torch.ones(1, 3, 4, 4) * reference[:, None, None], reference[None])
                     for f in (0.01, 1000.0))  # fmt: skip
    torch.testing.assert_close(faint, torch.full_like(faint, 0.01), rtol=1e-4, atol=0)
    torch.testing.assert_close(bright, torch.full_like(bright, np.log(2000.0)), rtol=1e-5, atol=0)


def test_sky_asinh_keeps_colour_whatever_the_depth_of_each_band():
    flux = torch.tensor([0.05, 0.1, 0.3])[None, :, None, None].expand(2, 3, 4, 4)
    linear = torch.sinh(normalise(Preprocessing(), flux, SKY))[:, :, 0, 0]
    torch.testing.assert_close(linear[0] / linear[0, 1], linear[1] / linear[1, 1])
    assert not torch.allclose(linear[0], linear[1]), "depth still sets the scale"


def test_sky_asinh_without_sky_sigma_is_an_error(stamps):
    with pytest.raises(PreprocessingError, match="sky_sigma"):
        normalise(Preprocessing(), stamps)


@pytest.mark.parametrize("method", ["full", "outer", "sky_asinh"])
def test_normalisation_commutes_with_the_orientation_of_the_stamp(stamps, method):
    how, choice = Preprocessing(method), torch.tensor([[True, False, True], [False, True, True]])
    torch.testing.assert_close(
        orient(normalise(how, stamps, SKY), choice), normalise(how, orient(stamps, choice), SKY)
    )


@pytest.mark.parametrize("method", ["full", "outer", "sky_asinh"])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_stamp_of_equal_pixels_stays_finite(method, value):
    found = normalise(Preprocessing(method), torch.full((2, 3, 64, 64), value), SKY)
    assert torch.isfinite(found).all()


def test_half_precision_stamps_are_normalised_in_float32(stamps):
    for method in ("full", "outer", "sky_asinh"):
        found = normalise(Preprocessing(method), stamps.half(), SKY)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, normalise(Preprocessing(method), stamps, SKY), rtol=0.01, atol=0.01)


def test_clip_bounds_the_input(stamps):
    found = normalise(Preprocessing("full", clip=1.5), stamps)
    assert found.abs().max() == 1.5


def test_preprocessing_survives_its_dict():
    how = Preprocessing("outer", 10.0, meta_cols=("psfsize_r",), meta_mean=(1.3,), meta_std=(0.2,))
    assert from_dict(how.as_dict(), "here") == how


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99"),
        ({"norm_method": "median"}, "'median'; expected one of"),
        ({"extra": 1}, "extra"),
    ],
)
def test_preprocessing_of_another_kind_is_refused(change, message):
    with pytest.raises(PreprocessingError, match=f"file.pt: .*{message}"):
        from_dict(Preprocessing().as_dict() | change, "file.pt")


def test_metadata_has_mean_0_and_deviation_1():
    values = torch.tensor([[1.0, 24.0], [1.4, 25.0], [1.8, 26.0]])
    how = dataclasses.replace(
        Preprocessing(),
        meta_cols=("a", "b"),
        meta_mean=(1.4, 25.0),
        meta_std=tuple(values.std(0, correction=0).tolist()),
    )
    found = standardise_metadata(how, values)
    torch.testing.assert_close(found.mean(0), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(2))


def test_every_column_that_knows_the_injection_is_refused_as_metadata():
    for column in STAMPS.columns:
        if column.leaks_label:
            with pytest.raises(PreprocessingError, match=r"know the label.*psfsize_r"):
                check_metadata_columns((column.name,))
    for unknown in ("psfsize", "ra", "stamp"):
        with pytest.raises(PreprocessingError, match=unknown):
            check_metadata_columns(("psfsize_r", unknown))
    check_metadata_columns(("psfsize_r", "psfdepth_r"))


def test_orientations_are_the_eight_of_a_square():
    stamp = torch.arange(9.0).reshape(1, 1, 3, 3)
    choices = torch.tensor([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], dtype=torch.bool)
    found = {tuple(s.flatten().tolist()) for s in orient(stamp.expand(8, 1, 3, 3), choices)}
    image = stamp[0, 0].numpy()
    expected = {tuple(np.rot90(m, k).flatten().tolist()) for m in (image, image.T) for k in range(4)}
    assert found == expected


def test_orientations_are_drawn_alike_and_depend_on_their_key():
    draws = draw_orientations(8000, 42, 0, 1)
    counts = np.bincount((draws.long() * torch.tensor([4, 2, 1])).sum(1).numpy(), minlength=8)
    assert abs(counts - 1000).max() < 130
    assert torch.equal(draws, draw_orientations(8000, 42, 0, 1))
    assert not torch.equal(draws, draw_orientations(8000, 42, 0, 2))
