"""Counts, magnitudes and colours of the mini sky are those of the real one."""

from dataclasses import replace

import numpy as np
import pytest

from darkhaloscope.simulated import reference
from darkhaloscope.simulated.brick import conditions_of, sources_of
from darkhaloscope.simulated.catalogue import Observed, in_primary, measure
from darkhaloscope.simulated.populations import concatenate, draw_stars, published_counts
from darkhaloscope.simulated.reference import summarise
from darkhaloscope.simulated.sky_plan import SkyConfig, brick_area_deg2, brick_wcs, generator
from darkhaloscope.survey.extinction import COEFFICIENTS
from darkhaloscope.survey.photometry import magnitude
from darkhaloscope.survey.targets import VARIANTS

BRICKS = [f"{ra:04d}p002" for ra in (1001, 1003, 1006, 1008, 1011, 1013, 1016, 1018, 1021, 1023, 1026, 1028)]
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
V3 = VARIANTS["v3_color_relaxed"]


def passes_v3(mag):
    cuts = (mag["z"] < V3.z_max) & (mag["r"] - mag["z"] > V3.rz_min) & (mag["z"] - mag["w1"] > V3.zw1_min)
    return np.nan_to_num(cuts).astype(bool)


def observed_brick(config, name):
    """A whole brick observed evenly: no planes needed to measure its catalogue."""
    conditions, side = conditions_of(config, name), 3600
    ivar = [np.broadcast_to(np.float32(conditions.sky_sigma(b) ** -2), (side, side)) for b in "grz"]
    size = [np.broadcast_to(np.float32(conditions.psfsize[b]), (side, side)) for b in "grz"]
    nexp, masks = np.ones((3, 1, 1), np.int16), np.zeros((1, 1), np.int32)
    return Observed(
        name, brick_wcs(name, side), conditions, np.stack(ivar), np.stack(size),
        np.broadcast_to(nexp, (3, side, side)), np.broadcast_to(masks, (side, side)),
    )  # fmt: skip


@pytest.fixture(scope="module", params=[1.0, 1.5])
def patch(request):
    """Truth and area of a dozen bricks: 0.75 square degrees."""
    config = SkyConfig(lrg_boost=request.param, faint_r=24.0)
    parts = []
    for name in BRICKS:
        part = sources_of(config, name)
        part["r0"] = part["mag_r"] - COEFFICIENTS["r"] * conditions_of(config, name).ebv
        parts.append(part)
    return config, concatenate(parts), sum(map(brick_area_deg2, BRICKS))


def test_galaxy_counts_are_the_published_ones_within_20_per_cent(patch):
    _, objects, area = patch
    centres, published = reference.galaxy_counts()
    galaxies = objects["r0"][objects["kind"] != "star"]
    for r, n in zip(centres, published, strict=True):
        if 18.5 < r < 23.8:
            found = ((galaxies >= r - 0.25) & (galaxies < r + 0.25)).sum() / area / 0.5
            assert found == pytest.approx(n, rel=0.2), f"r = {r}"
    assert published_counts(np.array([20.25]))[0] == pytest.approx(1652, rel=1e-6)


def test_targets_are_as_dense_as_real_ones(patch):
    config, objects, area = patch
    mag = {band: objects[f"mag_{band}"] for band in ("g", "r", "z", "w1")}
    found = (passes_v3(mag) & (objects["kind"] != "star")).sum() / area
    assert found == pytest.approx(config.lrg_boost * 2226.5, rel=0.1)
    assert not (passes_v3(mag) & (objects["kind"] == "star")).any()


def test_star_counts_are_plausible_at_high_latitude():
    stars = draw_stars(generator(SkyConfig(), "stars"), 2.0, 0.05, 23.0)
    to_21 = (stars["mag_r"] < 21.0).sum() / 2.0
    assert 1500 < to_21 < 3500
    faint = (stars["mag_r"] > 21) & (stars["mag_r"] < 22)
    bright = (stars["mag_r"] > 16) & (stars["mag_r"] < 17)
    assert 4 < faint.sum() / bright.sum() < 12


def test_measured_targets_have_the_quantiles_of_the_real_sample():
    config = SkyConfig(faint_r=22.5)
    parts = []
    for name in BRICKS[:8]:
        observed, objects = observed_brick(config, name), sources_of(config, name)
        objects["x"], objects["y"] = observed.wcs.sky_to_pixel(objects["ra"], objects["dec"])
        parts.append(measure(generator(config, "measure", name), objects, observed))
    table = concatenate(parts)
    mag = {band: magnitude(table[f"FLUX_{band.upper()}"]) for band in ("g", "r", "z", "w1")}
    kept = passes_v3(mag) & (table["TYPE"] != "PSF") & np.isfinite(mag["g"])
    assert kept.sum() > 1000
    summary = reference.lrg_sample()
    values = {
        "z": mag["z"],
        "r-z": mag["r"] - mag["z"],
        "g-r": mag["g"] - mag["r"],
        "z-w1": mag["z"] - mag["w1"],
    }
    for name, value in values.items():
        real = np.interp(LEVELS, summary["levels"], summary["quantiles"][name])
        np.testing.assert_allclose(np.quantile(value[kept], LEVELS), real, rtol=0.1, err_msg=name)


def test_catalogue_scatters_about_the_truth_by_its_stated_errors():
    config, name = SkyConfig(faint_r=23.0), BRICKS[0]
    observed, objects = observed_brick(config, name), sources_of(config, name)
    objects["x"], objects["y"] = observed.wcs.sky_to_pixel(objects["ra"], objects["dec"])
    table = measure(generator(config, "measure", name), objects, observed)
    assert set(np.unique(table["TYPE"])) == {"PSF", "REX", "EXP", "DEV", "SER"}
    from scipy.spatial import cKDTree

    position = np.stack([objects["ra"], objects["dec"]], axis=1)
    distance, match = cKDTree(position).query(np.stack([table["RA"], table["DEC"]], axis=1))
    assert 0 < np.median(distance) * 3600 < 0.2
    faint = (objects["mag_r"][match] > 22) & (distance * 3600 < 0.3)
    truth = 10 ** ((22.5 - objects["mag_r"][match]) / 2.5)
    pull = ((table["FLUX_R"] - truth) * np.sqrt(table["FLUX_IVAR_R"]))[faint]
    width = 0.5 * np.subtract(*np.quantile(pull, [0.84, 0.16]))
    assert 1.0 < width < 1.6  # correlated noise: more than the stated error, as in the survey


def test_neighbouring_bricks_share_their_sources():
    from darkhaloscope.simulated.brick import sources_under

    config = SkyConfig(faint_r=21.0)
    seen = [sources_under(config, plan, brick_wcs(plan.name, 3600)) for plan in config.plan[:2]]
    both = np.intersect1d(seen[0]["ra"], seen[1]["ra"])
    overlap = 0
    for objects, other in zip(seen, config.plan[1::-1], strict=True):
        x, y = brick_wcs(other.name, 3600).sky_to_pixel(objects["ra"], objects["dec"])
        in_other = (x > 0) & (x < 3599) & (y > 0) & (y < 3599)
        own = (objects["x"] > 0) & (objects["x"] < 3599) & (objects["y"] > 0) & (objects["y"] < 3599)
        overlap = (in_other & own).sum()
        assert np.isin(objects["ra"][in_other & own], both).all()
    assert overlap > 3
    primary = [in_primary(p.name, s["ra"], s["dec"]) for p, s in zip(config.plan[:2], seen, strict=True)]
    assert not np.isin(seen[0]["ra"][primary[0]], seen[1]["ra"][primary[1]]).any()


def test_seed_changes_the_sky_and_nothing_else_does():
    name = BRICKS[0]
    a, b = sources_of(SkyConfig(), name), sources_of(SkyConfig(bricks=2, size="small"), name)
    np.testing.assert_array_equal(a["ra"], b["ra"])
    assert len(sources_of(replace(SkyConfig(), seed=2), name)["ra"]) != len(a["ra"])


@pytest.mark.real
def test_summary_tables_are_those_of_the_real_catalogues(real_data):
    regions = summarise.region_table(real_data / "catalogs" / "dr10_region_seeing_and_depth.csv")
    lrgs = summarise.summarise_lrgs(real_data / "catalogs" / "dr10_lrg_sample.parquet", regions)
    assert lrgs == reference.lrg_sample()
    assert summarise.summarise_conditions(regions) == reference.conditions()
