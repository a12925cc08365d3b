import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from fake_brick import FakeBrick, at
from injection_cases import experiment, rows, target_table

from darkhaloscope.injection.arcs import arc_of
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.stamps import make_stamps
from darkhaloscope.sources.bank import Bank, BankError, make_index
from darkhaloscope.sources.synthetic import synthetic_bank

IMAGE = {"source": "image", "replicates": 3}
QUIET = {"poisson_noise": False}


@pytest.fixture(scope="module")
def brick():
    return FakeBrick()


def manifest(config, n=4, bank=None):
    targets = target_table(n, **at(np.linspace(100.3, 700, n), np.linspace(130, 650.7, n)))
    return lay_out_injections(targets, config, bank and bank.index)


def gaussian_bank(sigma_px, size=48, pixel=0.03, **meta):
    """A bank of one round Gaussian, alone in its split."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    image = np.exp(-0.5 * (x**2 + y**2) / sigma_px**2)[None]
    radius = 1.1774 * sigma_px * pixel
    columns = {
        "index": [0], "split": np.array(["train"], object), "clumpiness": [0.0],
        "hlr_arcsec": [radius], "hlr_image_arcsec": [radius], "axis_ratio": [1.0],
    }  # fmt: skip
    return Bank(make_index(columns | meta, pixel, "one"), (image / image.sum()).astype(np.float32))


def test_a_row_gets_a_galaxy_of_its_hosts_split_with_the_galaxys_size_and_colours():
    found = rows(lay_out_injections(target_table(200), experiment(injection=IMAGE)))
    index = synthetic_bank().index
    chosen = found["source_id"]
    np.testing.assert_array_equal(index.split[chosen], found["region_split"])
    np.testing.assert_allclose(found["src_reff_arcsec"], index.hlr_arcsec[chosen])
    np.testing.assert_allclose((1 - found["src_e"]) / (1 + found["src_e"]), index.axis_ratio[chosen])
    np.testing.assert_allclose(found["src_mag_g"] - found["src_mag_r"], index.g_r[chosen], atol=1e-6)
    np.testing.assert_allclose(found["src_mag_r"] - found["src_mag_z"], index.r_z[chosen], atol=1e-6)
    assert set(found["source_kind"]) == {"image"} and len(set(chosen.tolist())) > 60
    assert found["src_phi_rad"].max() > np.pi  # an image has no symmetry: any rotation


def test_no_source_is_in_two_splits():
    found = rows(lay_out_injections(target_table(300), experiment(injection=IMAGE)))
    by_split = [set(found["source_id"][found["region_split"] == s]) for s in ("train", "val", "test")]
    assert all(by_split) and not (
        by_split[0] & by_split[1] or by_split[1] & by_split[2] or by_split[0] & by_split[2]
    )


def test_galaxies_without_known_colours_get_drawn_ones():
    index = synthetic_bank().index
    unknown = dataclasses.replace(index, g_r=np.full(len(index), np.nan, np.float32))
    config = experiment(injection=IMAGE)
    found = rows(lay_out_injections(target_table(50), config, unknown))
    sersic = rows(lay_out_injections(target_table(50), experiment(injection={"replicates": 3})))
    np.testing.assert_allclose(found["src_mag_g"], sersic["src_mag_g"], atol=1e-9)


def test_task_ids_depend_on_the_banks_content_not_its_place():
    index = synthetic_bank().index
    ids = [
        set(
            rows(lay_out_injections(target_table(5), experiment(injection=IMAGE | {"source_bank": url}), i))[
                "task_id"
            ]
        )
        for url, i in [("a", index), ("b", index), ("a", dataclasses.replace(index, digest="other"))]
    ]
    assert ids[0] == ids[1] and not ids[0] & ids[2]


def test_an_image_of_a_gaussian_makes_the_arc_of_that_gaussian(brick):
    """Against a Sersic source of n = 0.5, which is a Gaussian."""
    bank = gaussian_bank(5.0)
    targets = target_table(3, **at(np.array([150.3, 400, 600]), np.array([150.0, 300.6, 500])))
    targets = targets.set_column(6, "region_split", pa.array(["train"] * 3))
    image = experiment(injection={"source": "image", "control_frac": 0.0}, stamps=QUIET)
    sersic = experiment(injection={"src_n": 0.5, "control_frac": 0.0}, stamps=QUIET)
    pictured = lay_out_injections(targets, image, bank.index)
    analytic = lay_out_injections(targets, sersic)
    same = {
        n: pictured.column(n) for n in ("src_reff_arcsec", "src_e", "src_mag_g", "src_mag_r", "src_mag_z")
    }
    for name, values in same.items():
        analytic = analytic.set_column(
            analytic.schema.get_field_index(name), analytic.schema.field(name), values
        )
    made = make_stamps(brick, pictured, image, bank=bank)
    a, b = arc_of(made, image, bank=bank), arc_of(make_stamps(brick, analytic, sersic), sersic)
    error = np.sqrt(((a - b) ** 2).sum((2, 3)) / (b**2).sum((2, 3)))
    assert error.max() < 0.02, error
    expected = make_stamps(brick, analytic, sersic).column("magnification").to_numpy()
    np.testing.assert_allclose(made.column("magnification").to_numpy(), expected, rtol=0.02)


def test_the_size_in_the_row_is_the_size_that_is_drawn(brick):
    """A bank's image is blurred by its telescope; drawn at the galaxy's own size it must be smaller."""
    config = experiment(injection={"source": "image", "control_frac": 0.0}, stamps=QUIET)
    sizes = []
    for own in (1.0, 0.5):
        bank = gaussian_bank(8.0, hlr_arcsec=[own * 1.1774 * 8 * 0.03])
        targets = target_table(1, **at([300.0], [300.0]))
        unlensed = lay_out_injections(targets, config, bank.index)
        index = unlensed.schema.get_field_index
        for name in ("theta_e_arcsec", "shear"):
            unlensed = unlensed.set_column(index(name), unlensed.schema.field(name), pa.array([0.0]))
        arc = arc_of(make_stamps(brick, unlensed, config, bank=bank), config, bank=bank)[0, 1]
        sizes.append(arc.sum() ** 2 / (arc**2).sum())
    assert sizes[1] < 0.9 * sizes[0]


@pytest.mark.parametrize("noise", [True, False])
def test_a_stamp_of_an_image_depends_on_its_row_alone(brick, noise):
    config = experiment(injection=IMAGE, stamps={"poisson_noise": noise})
    table = manifest(config)
    whole = pa.Table.from_batches([make_stamps(brick, table, config)])
    backwards = table.take(pa.array(np.arange(table.num_rows)[::-1]))
    parts = [make_stamps(brick, backwards.slice(a, n), config) for a, n in [(0, 1), (1, 6), (7, 5)]]
    assert pa.Table.from_batches(parts).sort_by("task_id").equals(whole.sort_by("task_id"))
    assert whole["cutout_ok"].to_numpy().all() and set(whole["source_kind"].to_pylist()) == {"image"}


def test_clumps_keep_their_own_colour():
    """Under one PSF in all bands a galaxy of one colour makes an arc of one colour, one with clumps does not."""
    brick = FakeBrick(sizes=(1.0, 1.0, 1.0))
    config = experiment(injection=IMAGE | {"control_frac": 0.0}, stamps=QUIET)
    table, layers = manifest(config, 3), synthetic_bank().layers(np.arange(120))
    one_colour = Bank(synthetic_bank().index, sum(i * s[:, 1, None, None] for i, s in layers))
    spread, total = [], []
    for bank in (None, one_colour):
        arcs = arc_of(make_stamps(brick, table, config, bank=bank), config, bank=bank)
        lit = arcs[:, 1] > 0.2 * arcs[:, 1].max((1, 2), keepdims=True)
        spread.append([np.log(a[0, b] / a[2, b]).std() for a, b in zip(arcs, lit, strict=True)])
        total.append(arcs[:, 1].sum((1, 2)))
    np.testing.assert_allclose(total[0], total[1], rtol=0.01)
    assert max(spread[1]) < 1e-3 and min(spread[0]) > 3e-3 and max(spread[0]) > 0.03


def test_each_band_holds_its_own_share_of_each_layer(brick):
    """A galaxy that is a narrow young Gaussian in g, a wide old one in z, and half of each in r."""
    narrow, wide = gaussian_bank(3.0), gaussian_bank(8.0)
    stack = np.stack([b.layers(np.array([0]))[0][0] for b in (wide, narrow)], axis=1)
    both = Bank(narrow.index, stack.mean(1), stack, np.array([[1.0, 0.5, 0.0]]))
    config = experiment(injection={"source": "image", "control_frac": 0.0}, stamps=QUIET)
    targets = target_table(1, **at([300.2], [300.4]))
    table = lay_out_injections(targets, config, narrow.index)
    # one pixel size for all three: the row's size over that of the image
    made = {}
    for name, bank in (("narrow", narrow), ("both", both), ("wide", Bank(narrow.index, stack[:, 0]))):
        stamps = make_stamps(brick, table, config, bank=bank)
        made[name] = arc_of(stamps, config, bank=bank)[0], stamps.column("magnification")[0].as_py()
    (young, mu_young), (found, mu), (old, mu_old) = made["narrow"], made["both"], made["wide"]
    np.testing.assert_allclose(found[0], young[0], atol=1e-6)
    np.testing.assert_allclose(found[1], (young[1] + old[1]) / 2, atol=1e-6)
    np.testing.assert_allclose(found[2], old[2], atol=1e-6)
    assert mu == pytest.approx((mu_young + mu_old) / 2, rel=1e-5) and mu_young != pytest.approx(
        mu_old, rel=1e-3
    )


def test_about_half_of_the_images_are_mirrored(brick, monkeypatch):
    config = experiment(injection=IMAGE | {"control_frac": 0.0}, stamps=QUIET)
    stamps = make_stamps(brick, manifest(config, 4), config)
    as_drawn = arc_of(stamps, config)
    monkeypatch.setattr("darkhaloscope.injection.arcs.mirrored", lambda ids: np.zeros(len(ids), bool))
    changed = (arc_of(stamps, config) != as_drawn).any((1, 2, 3))
    assert 2 <= changed.sum() <= 10


def test_a_pair_measures_the_same_image(brick):
    config = experiment(injection={"source": "image", "controls": "paired"})
    stamps = make_stamps(brick, manifest(config, 2), config)
    for name in ("arc_snr", "arc_flux_g", "magnification"):
        values = stamps.column(name).to_pylist()
        assert values[0] == values[1] and values[2] == values[3]


def test_rows_drawn_from_another_bank_are_refused(brick):
    config = experiment(injection=IMAGE)
    with pytest.raises(BankError, match="drawn from another bank"):
        make_stamps(brick, manifest(config), config, bank=gaussian_bank(5.0))
