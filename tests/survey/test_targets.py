import fitsio
import numpy as np
import pytest
from dr10_sweep import memory_of_selecting, write_sweep
from survey_testing import SWEEP_TYPES, galaxies

from darkhaloscope.records import TARGETS
from darkhaloscope.schema import to_batch
from darkhaloscope.sections import Splits, Targets
from darkhaloscope.survey import bricks, photometry
from darkhaloscope.survey.bricks import BrickTable
from darkhaloscope.survey.catalogue import host_id, read_catalogue, read_chunks
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.extinction import COEFFICIENTS
from darkhaloscope.survey.targets import VARIANTS, good_bricks, select_targets

SPLITS = Splits()


def _centres(names):
    ra, dec = bricks.brick_centre(*bricks.parse_names(names))
    return {"brickname": names, "ra": ra, "dec": dec}


@pytest.fixture
def sweep(tmp_path):
    def write(rows, without=()):
        path = tmp_path / "sweep-150p000-160p005.fits"
        names = [n for n in rows.dtype.names if n not in without]
        fitsio.write(str(path), rows[names].copy() if without else rows, clobber=True)
        return read_catalogue(str(path))

    return write


def _select(catalogue, splits=SPLITS, **kwargs):
    bricks_table, parts = kwargs.pop("bricks", None), kwargs.pop("brick_splits", None)
    selection = select_targets(catalogue, Targets(**kwargs), splits, 42, bricks_table, parts)
    counts = selection.counts
    assert counts["rows"] == len(catalogue) == sum(v for k, v in counts.items() if k != "rows")
    assert counts["targets"] == len(selection.columns["ra"])
    return selection


def test_a_selection_is_a_targets_table_with_units_as_named(sweep):
    selection = _select(sweep(galaxies(50)))
    batch = to_batch(TARGETS, selection.columns)
    row = batch.slice(0, 1).to_pylist()[0]
    assert row["mag_z"] == pytest.approx(20.0, abs=1e-4)
    assert row["mag_r"] - row["mag_z"] == pytest.approx(0.45, abs=1e-4)
    assert row["mag_r"] - row["mag_dered_r"] == pytest.approx(0.05 * 2.165, abs=1e-5)
    assert row["psfdepth_r"] == pytest.approx(24.5, abs=1e-3), "inverse variance in the file, magnitude here"
    assert row["psfsize_z"] == pytest.approx(1.2)
    assert row["psf_source"] == "catalogue" and row["type"] == "SER"
    assert row["shape_r"] == pytest.approx(0.8) and row["region_split"] in ("train", "val", "test")
    assert row["host_id"] == 10000 << 40 | int(galaxies()["BRICKID"][0]) << 16
    assert row["brickname"] == "1501p020"


EDGES = [
    ("z too faint", "mag_z", "z_max", -1),
    ("r - z too blue", "rz", "rz_min", 1),
    ("z - W1 too blue", "zw1", "zw1_min", 1),
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name,key,limit,sign", EDGES)
def test_each_colour_cut_lies_where_the_variant_says(sweep, variant, name, key, limit, sign):
    cuts = VARIANTS[variant]
    well = {"mag_z": cuts.z_max - 0.1, "rz": cuts.rz_min + 0.1, "zw1": cuts.zw1_min + 0.1}
    for step, passes in ((0.002, True), (-0.002, False)):
        rows = galaxies(**{**well, key: getattr(cuts, limit) + sign * step})
        counts = _select(sweep(rows), variant=variant).counts
        assert counts["targets"] == passes and counts[name] == (not passes)


def test_dereddening_shifts_the_cuts_by_the_extinction(sweep):
    ebv = 0.1
    shift = ebv * COEFFICIENTS["z"]
    catalogue = sweep(galaxies(3, mag_z=20.4 + shift * np.array([0.5, 1.1, -0.1]), rz=0.6, EBV=ebv))
    assert _select(catalogue, magnitudes="raw").counts["targets"] == 1
    assert _select(catalogue, magnitudes="dereddened").counts["targets"] == 2
    reddened = sweep(galaxies(rz=0.4 + ebv * (COEFFICIENTS["r"] - COEFFICIENTS["z"]) - 0.01, EBV=ebv))
    assert _select(reddened, magnitudes="raw").counts["targets"] == 1
    assert _select(reddened, magnitudes="dereddened").counts["r - z too blue"] == 1


REJECTED = [
    ({"TYPE": b"PSF"}, "star (type PSF) or duplicate (DUP)"),
    ({"TYPE": b"DUP"}, "star (type PSF) or duplicate (DUP)"),
    ({"FLUX_R": 0.0}, "flux in r, z or W1 not positive or not measured"),
    ({"FLUX_Z": -1.0}, "flux in r, z or W1 not positive or not measured"),
    ({"FLUX_W1": np.nan}, "flux in r, z or W1 not positive or not measured"),
    ({"FLUX_IVAR_R": 0.0}, "flux in r, z or W1 not positive or not measured"),
    ({"FLUX_IVAR_W1": 0.0}, "flux in r, z or W1 not positive or not measured"),
    ({"RA": np.nan}, "position not on the sky"),
    ({"DEC": 90.5}, "position not on the sky"),
    ({"PSFDEPTH_R": np.nan}, "a band without exposures"),
    ({"EBV": np.nan}, "ebv too high"),
    ({"NOBS_G": 0}, "a band without exposures"),
    ({"PSFSIZE_Z": 0.0}, "a band without exposures"),
    ({"PSFDEPTH_G": 0.0}, "a band without exposures"),
    ({"EBV": 0.121}, "ebv too high"),
    ({"PSFSIZE_R": 1.61}, "psfsize_r too large"),
    ({"PSFDEPTH_R": (5 / photometry.flux(23.59)) ** 2}, "psfdepth_r too shallow"),
]


@pytest.mark.parametrize("change,reason", REJECTED)
def test_a_galaxy_left_out_is_counted_under_its_reason(sweep, change, reason):
    counts = _select(sweep(galaxies(2, **{k: [v, galaxies()[k][0]] for k, v in change.items()}))).counts
    assert counts[reason] == 1 and counts["targets"] == 1


def test_a_depth_in_inverse_variance_is_not_cut_as_if_it_were_a_magnitude(sweep):
    shallow = (5 / photometry.flux(23.0)) ** 2  # 40: greater than 23.6, but a magnitude of 23.0
    assert shallow > 23.6
    assert _select(sweep(galaxies(PSFDEPTH_R=shallow))).counts["psfdepth_r too shallow"] == 1


def test_the_brick_tables_quality_decides_where_it_is_given(sweep):
    catalogue = sweep(galaxies(2, ra=[150.1, 150.4], PSFSIZE_R=9.0, EBV=0.05))
    names = catalogue.columns["brickname"]
    table = BrickTable({**_centres(names), "ebv": np.array([0.01, 0.2]), "psfsize_r": np.array([1.2, 1.2]),
                        "psfdepth_r": np.array([24.0, 24.0])})  # fmt: skip
    selection = _select(catalogue, bricks=table)
    assert selection.counts["ebv too high"] == 1 and selection.columns["brickname"].tolist() == [names[0]]
    assert selection.columns["psfsize_r"].tolist() == [9.0], "the object's own value stays in its row"
    alone = BrickTable({k: v[1:] for k, v in table.columns.items()})
    assert _select(catalogue, bricks=alone).counts["brick not in the brick table"] == 1


def test_a_g_flux_that_is_negative_or_not_measured_costs_its_magnitude_not_the_galaxy(sweep):
    selection = _select(sweep(galaxies(3, FLUX_G=[-0.1, 3.0, 3.0], FLUX_IVAR_G=[400.0, 0.0, 400.0])))
    assert np.isnan(selection.columns["mag_g"]).tolist() == [True, True, False]
    assert np.isfinite(selection.columns["z_host"]).all()


@pytest.mark.parametrize("as_text", [True, False])
def test_brick_names_and_types_may_be_bytes_or_text(sweep, as_text):
    catalogue = sweep(galaxies(3, TYPE=[b"SER", b"PSF", b"REX"]))
    for name, width in (("brickname", 8), ("type", 4)):
        padded = np.char.ljust(catalogue.columns[name], width)
        catalogue.columns[name] = padded if as_text else padded.astype(f"S{width}")
    found = _select(catalogue, Splits(method="region"), brick_splits={"1501p020": "val"})
    assert found.columns["type"].tolist() == ["SER", "REX"]
    assert found.columns["brickname"].tolist() == ["1501p020"] * 2
    assert found.columns["region_split"].tolist() == ["val"] * 2


LAYOUTS = {
    "DR8": {"without": ("PSFSIZE_G", "PSFSIZE_R", "PSFSIZE_Z", "SHAPE_R", "SHAPE_E1", "SHAPE_E2")},
    "DR9": {"type": "S3"},
    "DR10": {
        "type": "S3",
        "more": [("FLUX_I", "f4"), ("NOBS_I", "i2"), ("MASKBITS", "i4"), ("DCHISQ", "f4", (5,))],
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sweeps_of_every_release_give_the_same_galaxies(tmp_path, layout):
    plan = LAYOUTS[layout]
    rows = galaxies(20)
    kinds = [t if t[0] != "TYPE" else ("TYPE", plan.get("type", "S4")) for t in SWEEP_TYPES]
    kinds = plan.get("more", []) + [t for t in kinds if t[0] not in plan.get("without", ())]
    made = np.zeros(20, kinds)
    for name in set(made.dtype.names) & set(rows.dtype.names):
        made[name] = rows[name]
    if layout == "DR8":
        made["TYPE"] = b"DEV "
    fitsio.write(str(tmp_path / "sweep-150p000-160p005.fits"), made)
    names = np.unique(rows["BRICKNAME"]).astype(str)
    table = {
        f"{k}_{b}": np.full(len(names), v) for k, v in (("psfsize", 1.2), ("psfdepth", 24.5)) for b in "grz"
    }
    table |= _centres(names) | {"ebv": np.full(len(names), 0.03)}
    found = _select(read_catalogue(str(tmp_path / "sweep-150p000-160p005.fits")), bricks=BrickTable(table))
    assert found.counts["targets"] == 20
    assert (
        found.columns["host_id"].tolist()
        == host_id(*(rows[k] for k in ("RELEASE", "BRICKID", "OBJID"))).tolist()
    )
    assert set(found.columns["psf_source"]) == {"brick_table" if layout == "DR8" else "catalogue"}
    assert set(found.columns["type"]) == {"DEV" if layout == "DR8" else "SER"}


def test_galaxies_at_the_seam_and_at_the_poles_are_in_their_bricks(sweep):
    ra, dec = [359.9999, 0.0, 0.0001, 123.0, 321.0], [0.01, 0.01, 0.01, 89.99, -90.0]
    selection = _select(sweep(galaxies(5, ra=ra, dec=dec)))
    assert selection.counts["not primary in its brick"] == 0 and selection.counts["targets"] == 5
    assert selection.columns["brickname"].tolist() == [
        "3598p000",
        "0001p000",
        "0001p000",
        "1800p900",
        "1800m900",
    ]


def test_a_selection_so_tight_that_nothing_passes_is_an_empty_table(sweep):
    selection = _select(sweep(galaxies(50)), min_psfdepth_r=99.0)
    assert len(to_batch(TARGETS, selection.columns)) == 0
    assert selection.counts["psfdepth_r too shallow"] == 50


DR8_LACKS = ("PSFSIZE_G", "PSFSIZE_R", "PSFSIZE_Z", "SHAPE_R", "SHAPE_E1", "SHAPE_E2")


def test_a_catalogue_without_psfsize_takes_it_from_the_brick_table_and_says_so(sweep):
    catalogue = sweep(
        galaxies(2, ra=[150.1, 150.4]),
        without=("PSFSIZE_G", "PSFSIZE_R", "PSFSIZE_Z", "SHAPE_R", "SHAPE_E1", "SHAPE_E2"),
    )
    assert {"psfsize_g", "psfsize_r", "psfsize_z", "shape_r"} <= set(catalogue.absent)
    with pytest.raises(
        CatalogueError, match=r"sweep-150.*no columns PSFSIZE_G, PSFSIZE_R.*survey-bricks table"
    ):
        _select(catalogue)
    sizes = {f"psfsize_{b}": np.array([1.3, 1.3 * (b != "g")], np.float32) for b in "grz"}
    depths = {f"psfdepth_{b}": np.array([24.2, 24.2 * (b != "g")], np.float32) for b in "grz"}
    table = BrickTable(
        {**_centres(catalogue.columns["brickname"]), "ebv": np.full(2, 0.01), **sizes, **depths}
    )
    selection = _select(catalogue, bricks=table)
    assert selection.counts["a band without exposures"] == 1, "the second brick has no g"
    batch = to_batch(TARGETS, selection.columns).to_pylist()[0]
    assert batch["psfsize_r"] == pytest.approx(1.3) and batch["psfdepth_r"] == pytest.approx(24.2)
    assert batch["psf_source"] == "brick_table" and np.isnan(batch["shape_r"])


def test_good_bricks_have_every_band_and_pass_the_cuts():
    ones = np.ones(4)
    columns = {
        "brickname": np.array(["a"] * 4),
        "ebv": 0.1 * ones,
        "psfdepth_r": np.array([24, 24, 23, 24.0]),
    }
    columns |= {f"psfsize_{b}": 1.2 * ones for b in "grz"} | {f"nexp_{b}": 2 * ones for b in "grz"}
    columns["psfsize_g"] = np.array([1.2, 0, 1.2, 1.2])
    columns["nexp_z"] = np.array([2, 2, 2, 0])
    assert good_bricks(BrickTable(columns), Targets()).tolist() == [True, False, False, False]


@pytest.mark.parametrize("with_column", [True, False])
def test_objects_of_a_bricks_margin_are_left_to_the_brick_they_are_primary_in(sweep, with_column):
    rows = galaxies(2, ra=[150.1, 150.4])
    rows["BRICKNAME"], rows["BRICKID"] = (
        rows["BRICKNAME"][0],
        rows["BRICKID"][0],
    )  # as a Tractor file has them
    catalogue = sweep(rows)
    if with_column:
        catalogue.columns["brick_primary"] = np.array([True, False])
    selection = _select(catalogue)
    assert selection.counts["not primary in its brick"] == 1 and selection.columns["ra"].tolist() == [150.1]


def test_no_target_is_in_the_guard_or_in_two_splits(sweep):
    rng = np.random.default_rng(1)
    rows = galaxies(3000, ra=rng.uniform(150, 160, 3000), dec=rng.uniform(0, 5, 3000))
    selection = _select(sweep(rows), Splits(train=0.5, val=0.25, test=0.25, guard_arcsec=60.0))
    assert selection.counts["guard"] > 50 and set(selection.columns["region_split"]) == {
        "train",
        "val",
        "test",
    }
    cells = {
        (c, s) for c, s in zip(selection.columns["sky_cell"], selection.columns["region_split"], strict=True)
    }
    assert len(cells) == len({c for c, _ in cells})


def test_the_seeds_region_split_takes_whole_bricks_and_counts_the_rest(sweep):
    catalogue = sweep(galaxies(3, ra=[150.1, 150.12, 150.4]))
    name = str(catalogue.columns["brickname"][0])
    by_region = Splits(method="region")
    selection = _select(catalogue, by_region, brick_splits={name: "val"})
    assert selection.columns["region_split"].tolist() == ["val", "val"]
    assert selection.counts["brick not in a region"] == 1 and len(to_batch(TARGETS, selection.columns)) == 2
    with pytest.raises(ValueError, match="give brick_splits"):
        _select(catalogue, by_region)
    empty = _select(catalogue, by_region, brick_splits={})
    assert empty.counts["brick not in a region"] == 3 and len(to_batch(TARGETS, empty.columns)) == 0


def test_a_sweep_read_in_pieces_gives_the_same_galaxies(tmp_path):
    path = str(tmp_path / "sweep.fits")
    fitsio.write(path, galaxies(25))
    found = [_select(piece).columns for piece in read_chunks(path, 10)]
    for name, values in _select(read_catalogue(path)).columns.items():
        assert np.array_equal(
            np.concatenate([f[name] for f in found]), values, equal_nan=values.dtype != object
        )


def test_an_empty_sweep_has_no_targets(tmp_path):
    path = str(tmp_path / "sweep.fits")
    fitsio.write(path, np.zeros(0, dtype=SWEEP_TYPES))
    selection = _select(read_catalogue(path))
    assert selection.counts["rows"] == 0 and len(to_batch(TARGETS, selection.columns)) == 0


@pytest.mark.slow
def test_a_sweep_of_a_million_rows_is_cut_in_bounded_memory(tmp_path):
    used = memory_of_selecting(write_sweep(tmp_path / "sweep-150p000-160p005.fits", 1_000_000))
    assert used["file_mib"] > 450
    assert used["peak_mib"] - used["before_mib"] < 150, used
