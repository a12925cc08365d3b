import numpy as np
import pyarrow as pa
import pytest
from fake_brick import FakeBrick, at
from injection_cases import experiment, target_table

from darkhaloscope.injection.arcs import added_light, arc_of
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.stamps import failed_stamps, gains_of, make_stamps, stamp_schema
from darkhaloscope.lensing.psf import pixel_kernel
from darkhaloscope.records import MANIFEST, STAMPS
from darkhaloscope.schema import to_batch

QUIET = {"poisson_noise": False}
X, Y = np.array([100.3, 400.0, 517.77, 640.5]), np.array([130.0, 333.49, 480.2, 700.5])


@pytest.fixture(scope="module")
def brick():
    return FakeBrick()


def manifest(config, n=4, x=X, y=Y, **replace):
    """Manifest rows of hosts at (x, y); `replace` sets columns."""
    table = lay_out_injections(target_table(n, **at(x[:n], y[:n])), config)
    columns = {c: table.column(c) for c in MANIFEST.names}
    return to_batch(MANIFEST, columns | {k: np.broadcast_to(v, table.num_rows) for k, v in replace.items()})


def pixels(stamps, size=64):
    cells = stamps.column("stamp").to_pylist()
    return np.stack([np.frombuffer(c, "<f4").reshape(3, size, size) for c in cells])


def coadd(brick, x, y, size=64):
    return brick.cut(int(np.floor(x + 0.5)) - size // 2, int(np.floor(y + 0.5)) - size // 2, size).image


def column(stamps, name):
    return stamps.column(name).to_numpy(zero_copy_only=False)


INJECT = {"is_control": 0}


def test_a_control_is_the_coadd_bit_for_bit(brick):
    config = experiment()
    stamps = make_stamps(brick, manifest(config, is_control=1), config)
    for image, x, y in zip(pixels(stamps), X, Y, strict=True):
        assert image.tobytes() == coadd(brick, x, y).tobytes()
    assert stamps.schema.equals(stamp_schema(config), check_metadata=True)


@pytest.mark.parametrize("noise", [True, False])
def test_an_injection_without_flux_changes_no_pixel_bit(noise):
    brick = FakeBrick(300, 300)
    brick.image[:, 100:140] *= np.float32(-0.0)  # signed zeros must survive too
    config = experiment(stamps={"poisson_noise": noise})
    rows = manifest(config, 1, np.array([150.0]), np.array([150.0]), src_mag_g=np.inf, src_mag_r=np.inf,
                    src_mag_z=np.inf, **INJECT)  # fmt: skip
    stamps = make_stamps(brick, rows, config)
    assert pixels(stamps)[0].tobytes() == coadd(brick, 150, 150).tobytes()
    assert column(stamps, "metrics_ok")[0] == 0 and "no light" in column(stamps, "metrics_reason")[0]


def test_without_noise_a_stamp_is_the_coadd_plus_its_arc(brick):
    config = experiment(stamps=QUIET)
    stamps = make_stamps(brick, manifest(config, **INJECT), config)
    arcs = arc_of(stamps, config)
    for image, arc, x, y in zip(pixels(stamps), arcs, X, Y, strict=True):
        assert image.tobytes() == (coadd(brick, x, y) + arc).tobytes()
        assert arc.max() > 0.01


def test_stamp_minus_added_light_is_the_coadd(brick):
    config = experiment(stamps=QUIET)
    stamps = make_stamps(brick, manifest(config, is_control=[0, 1, 0, 1]), config)
    rest = pixels(stamps) - added_light(stamps, config)
    for image, x, y in zip(rest, X, Y, strict=True):
        np.testing.assert_allclose(image, coadd(brick, x, y), atol=1e-6)


@pytest.mark.parametrize("noise", [True, False])
def test_a_stamp_depends_on_its_row_alone(brick, noise, monkeypatch):
    config = experiment(stamps={"poisson_noise": noise}, injection={"replicates": 2})
    rows = manifest(config)
    whole = pa.Table.from_batches([make_stamps(brick, rows, config)])
    backwards = rows.take(pa.array(np.arange(rows.num_rows)[::-1]))
    parts = [make_stamps(brick, backwards.slice(a, n), config) for a, n in [(0, 1), (1, 4), (5, 3)]]
    monkeypatch.setattr("darkhaloscope.injection.stamps.ROWS_AT_A_TIME", 3)
    parts_small = make_stamps(brick, rows, config)
    key = "task_id"
    assert pa.Table.from_batches(parts).sort_by(key).equals(whole.sort_by(key))
    assert pa.Table.from_batches([parts_small]).sort_by(key).equals(whole.sort_by(key))


def test_bad_rows_do_not_change_their_neighbours(brick):
    config = experiment()
    rows = manifest(config)
    spoiled = manifest(config, ra=[150.0, 149.0, rows.column("ra")[2].as_py(), np.nan],
                       lens_q=[np.nan, 0.8, rows.column("lens_q")[2].as_py(), 0.9])  # fmt: skip
    assert (
        make_stamps(brick, spoiled, config).slice(2, 1).equals(make_stamps(brick, rows, config).slice(2, 1))
    )


def test_arcs_are_centred_on_the_host_to_a_fraction_of_a_pixel(brick):
    config = experiment(injection={"tier": "debug", "grid": "grid_small", "control_frac": 0.0}, stamps=QUIET)
    rows = manifest(config, **INJECT)
    rings = rows.filter(
        pa.array((column(rows, "theta_e_arcsec") == 1) & (column(rows, "config_id") % 16 == 0))
    )
    stamps = make_stamps(brick, rings, config)
    grid = np.arange(64)
    added = np.stack([i - coadd(brick, *brick.sky_to_pixel(*p)) for i, *p in zip(
        pixels(stamps), column(stamps, "ra"), column(stamps, "dec"), strict=True)])[:, 1]  # fmt: skip
    total = added.sum((1, 2))
    centre_x = (added.sum(1) * grid).sum(1) / total
    centre_y = (added.sum(2) * grid).sum(1) / total
    np.testing.assert_allclose(centre_x, column(stamps, "host_x"), atol=0.03)
    np.testing.assert_allclose(centre_y, column(stamps, "host_y"), atol=0.03)
    for name, where in (("host_x", X), ("host_y", Y)):
        host = column(stamps, name)
        assert ((host >= 31.5) & (host < 32.5)).all()
        assert len(set(np.round(host % 1, 2))) == len(set(np.round(where % 1, 2)))


def test_the_source_is_reddened_by_the_hosts_extinction_in_each_band(brick):
    config = experiment(stamps=QUIET)
    flux = []
    for ebv in (0.0, 0.12):
        stamps = make_stamps(brick, manifest(config, 1, ebv=ebv, **INJECT), config)
        flux.append([column(stamps, f"arc_flux_{b}")[0] for b in "grz"])
    dimmed = 2.5 * np.log10(np.array(flux[0]) / np.array(flux[1]))
    np.testing.assert_allclose(dimmed, 0.12 * np.array([3.214, 2.165, 1.211]), atol=1e-4)


def test_each_band_gets_its_own_flux_and_psf(brick):
    config = experiment(stamps=QUIET)
    stamps = make_stamps(
        brick, manifest(config, 1, ebv=0, src_mag_g=23, src_mag_r=22, src_mag_z=21, **INJECT), config
    )
    g, r, z = (column(stamps, f"arc_flux_{b}")[0] for b in "grz")
    np.testing.assert_allclose([r / g, z / r], [10**0.4, 10**0.4], rtol=0.02)
    magnification = column(stamps, "magnification")[0]
    np.testing.assert_allclose(r, magnification * 10**0.2, rtol=0.03)
    arc = arc_of(stamps, config)[0]
    added = pixels(stamps)[0] - coadd(brick, X[0], Y[0])
    np.testing.assert_allclose(added, arc, atol=1e-6)
    sharpness = (arc**2).sum((1, 2)) / arc.sum((1, 2)) ** 2
    assert sharpness[0] < sharpness[1] < sharpness[2]  # psfsize 1.4, 1.25, 1.2 arcsec


@pytest.mark.parametrize(
    ("psf", "expected"),
    [
        ({"model": "gaussian"}, [1.4, 1.25, 1.2]),
        ({"model": "moffat", "moffat_beta": 2.7}, np.array([1.4, 1.25, 1.2]) * 0.745),
        ({"model": "moffat", "moffat_beta": 3.5}, np.array([1.4, 1.25, 1.2]) * 0.811),
        ({"model": "moffat", "size": "legacy"}, [1.4, 1.25, 1.2]),
        ({"model": "gaussian", "per_band": False}, [1.25, 1.25, 1.25]),
    ],
)
def test_the_fwhm_is_that_of_the_model_for_the_surveys_psfsize(brick, psf, expected):
    stamps = make_stamps(brick, manifest(experiment(psf=psf), 1), experiment(psf=psf))
    np.testing.assert_allclose([column(stamps, f"fwhm_{b}")[0] for b in "grz"], expected, rtol=2e-3)
    np.testing.assert_allclose([column(stamps, f"psfsize_{b}")[0] for b in "grz"], [1.4, 1.25, 1.2])
    theta = column(stamps, "theta_e_arcsec")[0]
    assert column(stamps, "psf_source")[0] == "map"
    np.testing.assert_allclose(column(stamps, "theta_over_psf")[0], theta / 1.25, rtol=1e-6)
    np.testing.assert_allclose(column(stamps, "theta_over_fwhm")[0], theta / expected[1], rtol=2e-3)


def test_the_catalogues_psfsize_serves_where_the_brick_has_none():
    brick, config = FakeBrick(300, 300, sizes=None), experiment()
    rows = manifest(config, 1, np.array([150.0]), np.array([150.0]))
    stamps = make_stamps(brick, rows, config)
    assert column(stamps, "psf_source")[0] == "catalogue" and column(stamps, "cutout_ok")[0] == 1
    np.testing.assert_allclose(column(stamps, "psfsize_r")[0], column(rows, "psfsize_r")[0])


def test_a_pixel_kernel_gives_the_arc_of_the_psf_it_was_sampled_from(brick, tmp_path):
    fwhm = [1.1, 1.0, 0.9]
    for band, width in zip("grz", fwhm, strict=True):
        np.save(tmp_path / f"psf_{band}.npy", pixel_kernel(width, "gaussian", size=31))
    kernel = experiment(psf={"model": "kernel", "kernel": f"{tmp_path}/psf_{{band}}.npy"}, stamps=QUIET)
    rows = manifest(kernel, 2, **INJECT)
    stamps = make_stamps(brick, rows, kernel)
    np.testing.assert_allclose([column(stamps, f"fwhm_{b}")[0] for b in "grz"], fwhm, rtol=0.01)
    assert set(column(stamps, "psf_source")) == {"kernel"}
    gaussian = experiment(psf={"model": "gaussian"}, stamps=QUIET)
    brick_like = FakeBrick(sizes=fwhm)
    expected = arc_of(make_stamps(brick_like, rows, gaussian), gaussian)
    found = arc_of(stamps, kernel)
    assert np.abs(found - expected).max() < 0.01 * expected.max()


def test_missing_data_get_no_arc():
    brick = FakeBrick(300, 300)
    brick.image[1, :, 152:] = brick.invvar[1, :, 152:] = 0
    config = experiment(stamps=QUIET)
    stamps = make_stamps(brick, manifest(config, 1, np.array([150.0]), np.array([150.0]), **INJECT), config)
    image = pixels(stamps)[0]
    assert not image[1, :, 34:].any() and image[0, :, 34:].any()
    rest = image - added_light(stamps, config)[0]
    np.testing.assert_allclose(rest, coadd(brick, 150, 150), atol=1e-6)
    assert column(stamps, "bad_fraction")[0] == pytest.approx(30 / 64)
    assert 0.01 < column(stamps, "arc_masked_fraction")[0] < 0.99


def test_pixels_are_missing_where_there_is_no_inverse_variance_whatever_the_image_holds():
    brick, config = FakeBrick(300, 300), experiment()
    brick.invvar[1, :, 152:] = 0  # filled by the survey: no zeros in the image
    brick.image[1, :, :130] = 0  # a zero that was measured
    stamps = make_stamps(brick, manifest(config, 1, np.array([150.0]), np.array([150.0])), config)
    assert column(stamps, "bad_fraction")[0] == pytest.approx(30 / 64)


def test_a_stamp_beyond_the_brick_says_how_much_was_padded():
    brick, config = FakeBrick(300, 300), experiment()
    stamps = make_stamps(
        brick, manifest(config, 1, np.array([10.0]), np.array([150.0]), is_control=1), config
    )
    assert column(stamps, "cutout_ok")[0] == 1
    assert column(stamps, "padded_fraction")[0] == pytest.approx(22 / 64)
    assert not pixels(stamps)[0][:, :, :22].any()


def test_masks_and_sky_are_summed_up():
    brick, config = FakeBrick(300, 300), experiment()
    brick.maskbits[118:150, :] = 1 << 1 | 1 << 11  # BRIGHT, MEDIUM in half of the stamp
    brick.maskbits[118:166, 118:126] |= 1  # NPRIMARY: a good pixel
    rows = manifest(config, 1, np.array([150.0]), np.array([150.0]))
    stamps = make_stamps(brick, rows, config)
    assert column(stamps, "bad_fraction")[0] == pytest.approx(0.5)
    assert column(stamps, "maskbits_any")[0] == (1 | 1 << 1 | 1 << 11)
    np.testing.assert_allclose(
        [column(stamps, f"sky_sigma_{b}")[0] for b in "grz"], [0.002, 0.0025, 0.009], rtol=0.2
    )
    brick.has_maskbits = False
    assert column(make_stamps(brick, rows, config), "maskbits_any")[0] == -1


def nan_pixel(brick):
    brick.image[2, 150, 150] = np.nan


def band_without_data(brick):
    brick.invvar[0] = 0


def silent_zero_band(brick):
    brick.image[2] = 0


def all_masked(brick):
    brick.maskbits[:] = 1 << 10


def broken_tile(brick):
    brick.broken = lambda x0, y0: (x0, y0) == (118, 118)


def absurd_seeing(brick):
    brick.sizes = (1.2, 25.0, 1.2)


@pytest.mark.parametrize(
    ("spoil", "row", "reason"),
    [
        (nan_pixel, {}, "1 pixel values are NaN"),
        (band_without_data, {}, "band g has no data"),
        (silent_zero_band, {}, "band z is constant"),
        (all_masked, {}, "every pixel is masked"),
        (broken_tile, {}, "broken tile"),
        (absurd_seeing, {}, "psfsize_r is 25"),
        (None, {"ra": 149.0}, "outside brick 1500p020"),
        (None, {"dec": np.nan}, "outside brick"),
        (None, {"lens_q": np.nan}, "lens_q is nan"),
        (None, {"theta_e_arcsec": -1.0}, "theta_e_arcsec is -1"),
        (None, {"src_mag_z": np.nan}, "flux"),
        (None, {"ebv": np.nan}, "flux"),
    ],
)
@pytest.mark.parametrize("control", [0, 1])
def test_a_row_that_cannot_be_made_comes_back_with_its_reason(spoil, row, reason, control):
    """In both classes alike, so that failing is no label."""
    brick, config = FakeBrick(300, 300), experiment(stamps=QUIET)
    if spoil:
        spoil(brick)
    rows = manifest(config, 1, np.array([150.0]), np.array([150.0]), is_control=control, **row)
    stamps = make_stamps(brick, rows, config)
    assert stamps.num_rows == 1 and column(stamps, "cutout_ok")[0] == 0
    assert reason in column(stamps, "failure_reason")[0]
    assert "row 0" not in column(stamps, "failure_reason")[0]
    nulls = {n for n in STAMPS.names if stamps.column(n)[0].as_py() is None}
    assert {"stamp", "host_x", "sky_sigma_g", "arc_snr", "magnification", "bad_fraction"} <= nulls
    assert column(stamps, "metrics_ok")[0] == 0
    assert stamps.schema.equals(stamp_schema(config))


def test_rows_in_are_rows_out(brick):
    config = experiment()
    rows = manifest(config, ra=[150.01, 149.0, 150.02, 151.0])
    stamps = make_stamps(brick, rows, config)
    assert column(stamps, "task_id").tolist() == column(rows, "task_id").tolist()
    assert column(stamps, "cutout_ok").tolist() == [1, 0, 1, 0]
    assert [bool(r) for r in column(stamps, "failure_reason")] == [False, True, False, True]


def test_a_brick_that_cannot_be_read_fails_its_rows_alike():
    config = experiment()
    rows = manifest(config, psfsize_r=[1.25, np.nan, 0.0, 1.3])
    stamps = failed_stamps(rows, "1500p020: gone", config)
    assert column(stamps, "cutout_ok").tolist() == [0] * 4
    assert set(column(stamps, "failure_reason")) == {"1500p020: gone"}
    assert [v is None for v in stamps.column("theta_over_fwhm").to_pylist()] == [False, True, True, False]
    assert make_stamps(FakeBrick(300, 300), rows.slice(0, 0), config).num_rows == 0


def test_rows_of_another_brick_are_a_mistake(brick):
    with pytest.raises(ValueError, match=r"1500p020 was given rows of \['1502p020'\]"):
        make_stamps(brick, manifest(experiment(), brickname="1502p020"), experiment())


def test_photon_noise_is_repeatable_and_new_for_every_stamp(brick):
    config = experiment(injection={"replicates": 1})
    rows = manifest(config, **INJECT)
    stamps = make_stamps(brick, rows, config)
    arcs = arc_of(stamps, config)
    noise = [i - coadd(brick, x, y) - a for i, a, x, y in zip(pixels(stamps), arcs, X, Y, strict=True)]
    gains = gains_of(brick, rows, config)
    for one, arc in zip(noise, arcs, strict=True):
        lit = arc > 0.1 * arc.max((1, 2), keepdims=True)
        pull = (one / np.sqrt(np.maximum(arc, 1e-12) / gains[:, None, None]))[lit]
        assert abs(pull.std() - 1) < 4 / np.sqrt(2 * lit.sum()) and abs(pull.mean()) < 4 / np.sqrt(lit.sum())
    other = manifest(config, task_id=[f"{i:032x}" for i in range(4)], **INJECT)
    assert all((pixels(make_stamps(brick, other, config)) != pixels(stamps)).any((1, 2, 3)))


def test_a_control_measures_the_arc_its_partner_got(brick):
    config = experiment(injection={"controls": "paired"})
    stamps = make_stamps(brick, manifest(config, 2), config)
    names = [c.name for c in STAMPS.columns[len(MANIFEST.columns) :] if c.name != "stamp"]
    for name in names:
        values = stamps.column(name).to_pylist()
        assert values[0] == values[1] and values[2] == values[3], name
    assert column(stamps, "is_control").tolist() == [0, 1, 0, 1]
