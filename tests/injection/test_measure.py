import numpy as np
import pytest
from fake_brick import FakeBrick, at
from injection_cases import experiment, target_table

from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.measure import core_fraction, measure_arc, median, why_not_trusted
from darkhaloscope.injection.stamps import make_stamps

NONE = np.zeros((8, 8), bool)


def test_snr_is_that_of_a_matched_filter_in_white_noise():
    """Against the scatter of the optimal amplitude over many noise draws."""
    rng = np.random.default_rng(3)
    arc = rng.uniform(0, 0.02, (3, 8, 8))
    sigma = rng.uniform(0.005, 0.02, (3, 8, 8))
    found = measure_arc(arc, sigma**-2, NONE, 1.0)
    noise = rng.standard_normal((4000, 3, 8, 8)) * sigma
    weight = arc / sigma**2
    amplitude = (noise * weight).sum((2, 3)) / (arc * weight).sum((1, 2))
    np.testing.assert_allclose(found.snr, 1 / amplitude.std(0), rtol=0.05)
    np.testing.assert_allclose(found.snr_total, np.sqrt((found.snr**2).sum()))


def test_correlated_noise_lowers_the_matched_filter_snr_and_not_the_single_pixels():
    arc = np.full((3, 8, 8), 0.01)
    arc[1, 4, 4] = 0.03
    a, b = (measure_arc(arc, np.full((3, 8, 8), 1e4), NONE, c) for c in (1.0, 1.4))
    np.testing.assert_allclose(a.snr / b.snr, 1.4)
    assert a.snr_total / b.snr_total == pytest.approx(1.4)
    assert a.snr_max_pixel == b.snr_max_pixel == pytest.approx(3.0)


def test_bad_pixels_and_pixels_without_data_count_for_nothing_but_flux():
    arc = np.ones((3, 8, 8))
    invvar = np.full((3, 8, 8), 4.0)
    invvar[1, :2] = 0
    bad = NONE.copy()
    bad[:, :4] = True
    found = measure_arc(arc, invvar, bad, 1.0)
    np.testing.assert_allclose(found.snr**2, [4 * 32, 4 * 24, 4 * 32])
    assert found.masked_fraction == pytest.approx(1 - 24 / 64)
    np.testing.assert_allclose(found.flux, 64)
    everywhere = measure_arc(arc, invvar, ~NONE, 1.0)
    assert everywhere.snr_total == everywhere.snr_max_pixel == 0 and everywhere.masked_fraction == 1


@pytest.mark.parametrize(
    ("light", "masked", "magnification", "reason"),
    [
        (1.0, 0.0, 2.0, ""),
        (1.0, 0.49, 2.0, ""),
        (1.0, 0.51, 2.0, "of the arc's r flux is on bad pixels"),
        (0.0, 0.0, 2.0, "no light in the r band"),
        (1.0, 0.0, np.nan, "not finite"),
        (1.0, 0.0, 5.0, "inside the stamp"),
    ],
)
def test_measurements_that_say_little_are_marked_with_the_reason(light, masked, magnification, reason):
    arc = np.full((3, 10, 10), 0.01 * light)
    bad = (np.arange(100) < 100 * masked).reshape(10, 10)
    source = np.full(3, 0.5)
    found = why_not_trusted(measure_arc(arc, np.ones((3, 10, 10)), bad, 1.0), magnification, source)
    assert (reason in found) if reason else not found


def test_a_ring_wholly_under_the_halo_of_a_star_is_drawn_but_not_measured():
    """Like RA 121.389571, Dec 19.167777 (brick 1214p192): 1,035 of 4,096 pixels good, the ring masked."""
    brick = FakeBrick(300, 300)
    y, x = np.mgrid[:300, :300]
    brick.maskbits[np.hypot(x - 150, y - 150) < 31.2] = 1 << 11
    config = experiment(injection={"tier": "debug", "grid": "grid_small", "control_frac": 0.0})
    rows = lay_out_injections(target_table(1, **at([150.0], [150.0])), config).slice(47, 1)
    stamps = make_stamps(brick, rows, config).to_pylist()[0]
    masked = brick.cut(118, 118, 64).maskbits != 0
    assert 1000 < (~masked).sum() < 1100
    added = np.frombuffer(stamps["stamp"], "<f4").reshape(3, 64, 64) - brick.cut(118, 118, 64).image
    assert added[1].max() > 20 * 0.0025 and added[1][masked].sum() > 0.99 * added[1].sum()
    assert stamps["cutout_ok"] == 1 and stamps["bad_fraction"] == 0  # MEDIUM is good for training
    assert stamps["arc_snr"] < 1 and stamps["arc_snr_max_pixel"] < 1 and stamps["arc_masked_fraction"] > 0.99
    assert stamps["metrics_ok"] == 0 and "bad pixels" in stamps["metrics_reason"]
    kept = experiment(
        injection={"tier": "debug", "grid": "grid_small", "control_frac": 0.0},
        survey={"metrics_bad_maskbits": ("BRIGHT",)},
    )
    unmasked = make_stamps(brick, rows, kept).to_pylist()[0]
    assert unmasked["arc_snr"] > 100 and unmasked["metrics_ok"] == 1


def test_the_core_fraction_is_the_light_within_the_radius_of_the_host():
    arc = np.zeros((3, 8, 8))
    arc[1, 4, 4], arc[1, 4, 7], arc[0, 0, 0] = 3.0, 1.0, 100.0
    assert core_fraction(arc, (4.2, 4.0), 1.0) == pytest.approx(0.75)
    assert core_fraction(arc, (7.0, 4.0), 0.5) == pytest.approx(0.25)
    assert np.isnan(core_fraction(np.zeros((3, 8, 8)), (4.0, 4.0), 1.0))


def test_magnitudes_are_of_the_lensed_source_alone_and_with_its_host():
    brick = FakeBrick()
    config = experiment(injection={"control_frac": 0.0})
    rows = lay_out_injections(target_table(3, **at([200.0, 300.0, 250.0], [200.0, 220.0, 300.0])), config)
    made = {n: v for n, v in make_stamps(brick, rows, config).to_pydict().items()}
    for i in range(3):
        for band, red in zip("grz", (3.214, 2.165, 1.211), strict=True):
            arc = made[f"src_mag_{band}"][i] + red * made["ebv"][i] - 2.5 * np.log10(made["magnification"][i])
            assert made[f"arc_mag_{band}"][i] == pytest.approx(arc, abs=0.01)
            both = -2.5 * np.log10(10 ** (-0.4 * arc) + 10 ** (-0.4 * made[f"mag_{band}"][i]))
            assert made[f"total_mag_{band}"][i] == pytest.approx(both, abs=0.01)


@pytest.mark.parametrize("n", [1, 2, 7, 4096])
def test_the_median_is_numpys(n):
    values = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    assert median(values) == np.median(values)
