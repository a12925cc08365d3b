import numpy as np
import pytest

from darkhaloscope.records import BANDS
from local_spark.gallery import SOURCE_R, THETA_E, experiment_of, grid_rows, sheet, stamps_of
from local_spark.real_hosts import StampBrick, des_stamps, null_rows, sky_sigma, with_columns

SIGMA = np.array([0.003, 0.004, 0.012])


@pytest.fixture
def hosts(tmp_path):
    rng = np.random.default_rng(0)
    y, x = np.indices((91, 91)) - 45.0
    light = 3.0 * np.exp(-0.5 * (x**2 + y**2) / 9.0) / (2 * np.pi * 9.0)
    images = np.stack(
        [light * f + rng.normal(0, s, (3, 91, 91)) for f, s in zip((1, 2, 4), SIGMA, strict=True)]
    )
    images = images + rng.normal(0, 1, images.shape) * SIGMA[:, None, None]
    np.savez(tmp_path / "hosts.npz", image=images.astype(np.float32))
    return des_stamps(tmp_path / "hosts.npz")


def test_the_sky_noise_is_measured_in_the_outer_ring():
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1, (3, 91, 91)) * SIGMA[:, None, None]
    image[:, 40:51, 40:51] += 100
    np.testing.assert_allclose(sky_sigma(image), SIGMA, rtol=0.05)


def test_every_cell_of_the_sheet_has_its_theta_e_and_magnitude(hosts, tmp_path):
    experiment = experiment_of("sersic")
    stamps = stamps_of(hosts[0], grid_rows(hosts[1], experiment), experiment)
    rows = stamps.to_pylist()
    assert [r["theta_e_arcsec"] for r in rows] == list(THETA_E) * len(SOURCE_R)
    assert [r["src_mag_r"] for r in rows] == pytest.approx(np.repeat(SOURCE_R, len(THETA_E)))
    assert all(r["cutout_ok"] for r in rows)
    snr = np.array([r["arc_snr"] for r in rows]).reshape(len(SOURCE_R), len(THETA_E))
    assert (np.diff(snr.mean(axis=1)) < 0).all(), "fainter sources must be harder to see"
    sheet(stamps, len(THETA_E), "test", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_a_source_without_light_leaves_every_pixel_as_it_was(hosts):
    experiment = experiment_of("sersic")
    for rows in grid_rows(hosts[1], experiment)[:3]:
        (stamp,) = stamps_of(hosts[0], [null_rows(rows)], experiment).column("stamp").to_pylist()
        brick = next(b for b in hosts[0] if b.brickname == rows.column("brickname")[0].as_py())
        assert np.array_equal(np.frombuffer(stamp, "<f4").reshape(3, 64, 64), brick.cut(13, 13, 64).image)


def test_a_stamp_brick_has_no_data_beyond_its_image():
    image = np.ones((len(BANDS), 91, 91), np.float32)
    cut = StampBrick("x", image, SIGMA).cut(80, -5, 20)
    assert cut.padded == 400 - 11 * 15
    assert (
        (cut.invvar[:, :5] == 0).all()
        and (cut.invvar[:, 5:, :11] > 0).all()
        and (cut.invvar[:, :, 11:] == 0).all()
    )


def test_columns_are_replaced_by_name(hosts):
    rows = grid_rows(hosts[1], experiment_of("sersic"))[0]
    assert with_columns(rows, {"shear": [0.07]}).column("shear").to_pylist() == [0.07]
