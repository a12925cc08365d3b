"""Which lenses are anchors, and in which set: by reference, type and confirmation, never by hand."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest

import evaluation.anchors
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.positions import read_positions
from evaluation.anchors.lenscat import (
    ADMITTED,
    CANDIDATES,
    HSC,
    INDEPENDENT,
    LEGACY,
    SPECTROSCOPIC,
    kind_of,
    read_references,
)  # fmt: skip
from evaluation.anchors.position_gates import centroid_fault, j_name_fault, match
from evaluation.anchors.sets import CONTAMINANTS, at_most, from_file, join, lenscat, slacs_bells
from evaluation.anchors.visibility import classify, expected_arc_snr

SL2S, HUANG, SLACS = "Sonnenfeld et al. (2013) - arXiv:1307.4764", "arXiv:2005.04730", "arXiv:0805.1931"
SUGOHI, SILO = "https://arxiv.org/abs/2312.07333", "Talbot et al. (2020) - arXiv:2007.09006"
QUASARS = "https://research.ast.cam.ac.uk/lensedquasars/index.html"
MASTER = "Moustakas et al. (2012) - adsabs:2012hst..prop12833M"


@pytest.mark.parametrize(
    ("row", "kind", "why"),
    [
        (("galaxy", "confident", SL2S), INDEPENDENT, "SL2S"),
        (("galaxy", "confident", f"{HUANG} | {SL2S}"), INDEPENDENT, "SL2S"),
        (("galaxy", "confident", SLACS), SPECTROSCOPIC, "SLACS"),
        (("galaxy", "confident", HUANG), LEGACY, "Huang"),
        (("galaxy", "confident", SUGOHI), HSC, "by eye"),
        (("galaxy", "confident", f"{SUGOHI} {SLACS}"), SPECTROSCOPIC, "SLACS"),
        (("galaxy", "confident", f"{SILO} | {HUANG}"), CANDIDATES, "second redshift"),
        (("galaxy", "probable", SL2S), "", "not confirmed"),
        (("cluster", "confident", SL2S), "", "another class: cluster"),
        (("group", "confident", SL2S), "", "another class: group"),
        (("galaxy", "confident", f"{SL2S} | {QUASARS}"), "", "another class: lensed_quasar"),
        (("galaxy", "confident", MASTER), "", "no reference of the allow-list"),
        (("galaxy", "confident", ""), "", "no reference of the allow-list"),
    ],
)
def test_a_lens_is_in_the_set_that_its_references_and_type_allow(row, kind, why):
    found, reason = kind_of(*row, read_references())
    assert found == kind and why in reason


@pytest.fixture(scope="module")
def lenscat_table(request):
    """The table of lenscat: of the installed package, which needs not be imported, or of the shared data."""
    if package := importlib.util.find_spec("lenscat"):
        return str(Path(package.origin).parent / "data" / "catalog.csv")
    return str(request.getfixturevalue("real_data") / "catalogs" / "lenscat.csv.gz")


def test_the_real_lenscat_gives_each_set_and_leaves_the_rest_out_with_reasons(lenscat_table):
    found, left_out = lenscat(lenscat_table, [k for k in ADMITTED if k != CANDIDATES])
    sets, n = np.unique(found.columns["anchor_set"].astype(str), return_counts=True)
    sizes = dict(zip(sets.tolist(), n.tolist(), strict=True))
    assert sizes == {INDEPENDENT: 69, SPECTROSCOPIC: 134, HSC: 56, LEGACY: 846}
    assert len(found) + sum(left_out.values()) == 32_838
    assert left_out["another class: cluster"] == 1023 and left_out["not confirmed"] > 29_000
    assert left_out["not asked for: spectroscopic_candidates"] == 499
    assert found.columns["anchor_set"][0] == INDEPENDENT, "the headline set comes first"


@pytest.fixture(scope="module")
def lenscat_rows(lenscat_table):
    return read_positions(lenscat_table, object_type="lens", texts=("type", "grading", "ref")).columns


def test_the_allow_list_sees_the_numbers_that_the_science_notes_state(lenscat_rows):
    """Confident at Dec < 32.4: 1,855 rows, of which 221 clusters and 157 quasars; and none of these is an anchor."""
    south = (lenscat_rows["grading"] == "confident") & (lenscat_rows["dec"] < 32.4)
    rows, references = [lenscat_rows[n][south] for n in ("type", "grading", "ref")], read_references()
    why = np.array([kind_of(*row, references)[1] for row in zip(*rows, strict=True)])
    quasar = ["research.ast.cam.ac.uk/lensedquasars" in ref for ref in rows[2]]
    assert (len(why), sum(why == "another class: cluster"), sum(quasar)) == (1855, 221, 157)
    assert all(w.startswith("another class") for w in why[quasar])


def test_each_line_of_the_allow_list_meets_rows_of_lenscat_and_says_what_it_rests_on(lenscat_rows):
    refs = " | ".join(lenscat_rows["ref"])
    for line in read_references():
        assert line.match in refs, f"{line.match} admits nothing"
        assert line.checked_against and bool(line.confirmed_by) == (line.kind in ADMITTED), line.match
        assert line.kind not in (INDEPENDENT, SPECTROSCOPIC) or "by eye" not in line.confirmed_by
        assert line.kind != INDEPENDENT or "memory" not in line.checked_against


def test_no_position_stands_in_the_code():
    """Two numbers of four decimals side by side would be one."""
    for path in Path(evaluation.anchors.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            values = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
            numbers = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, float)]
            assert sum(round(v, 3) != v for v in numbers) < 2, f"{path.name}: {numbers}"


def test_a_table_that_is_not_lenscat_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("ra,dec,name\n150.1,2.0,a\n")
    with pytest.raises(CatalogueError, match=r"no columns type, grading, ref.*lenscat"):
        lenscat(str(path))


def test_the_99_lenses_agree_with_their_names_and_name_their_reference():
    found = slacs_bells()
    c = found.columns
    assert len(found) == 99 and not found.fault.any()
    assert dict(zip(*np.unique(c["anchor_set"].astype(str), return_counts=True), strict=True)) == {
        "BELLS": 40,
        "SLACS": 59,
    }
    names = zip(c["object_name"], c["ra"], c["dec"], strict=True)
    assert not any(j_name_fault(*row) for row in names)
    assert all("arXiv" in r for r in c["reference"])
    assert np.isfinite(c["theta_e_arcsec"]).sum() == 59


def test_an_anchor_of_two_sets_counts_in_the_first(tmp_path):
    first = slacs_bells()
    path = tmp_path / "mine.csv"
    path.write_text(f"name,ra_deg,dec_deg\nagain,{first.columns['ra'][0]},{first.columns['dec'][0]}\n")
    both = join([first, from_file(str(path), "mine")])
    assert "duplicate" in both.fault[99] and not both.fault[:99].any()


def test_contaminants_keep_their_type_and_are_thinned_by_type_over_the_whole_table(tmp_path):
    path = tmp_path / "others.csv"
    rows = [f"{150 + i / 10:.2f},{i / 10:.2f},{'ring' if i % 3 else 'merger'}" for i in range(30)]
    path.write_text("\n".join(["ra_deg,dec_deg,kind", *rows]) + "\n")
    found = from_file(str(path))
    assert set(found.columns["anchor_set"]) == {CONTAMINANTS} and set(found.columns["label"]) == {0}
    some = at_most(found, 8)
    assert sorted(np.unique(some.columns["object_type"].astype(str), return_counts=True)[1]) == [8, 8]
    assert some.columns["ra"].max() - some.columns["ra"].min() > 1.5
    path.write_text("ra_deg,dec_deg,kind\n150.1,2.0,lens\n")
    with pytest.raises(CatalogueError, match="1 lenses among the contaminants"):
        from_file(str(path))


@pytest.mark.parametrize(
    ("name", "ra", "dec", "fits"),
    [
        ("SDSSJ0029-0055", 7.282417, -0.930694, True),
        ("SDSSJ0029-0055", 7.60, -0.930694, False),
        ("SDSSJ0029-0055", 7.282417, 0.930694, False),
        ("SDSSJ161109.80+170526.6", 242.790830, 17.090720, True),
        ("SDSSJ161109.80+170526.6", 242.794, 17.090720, False),
        ("CSWA21 | SDSS J002240.9+143110", 5.6706, 14.5196, True),
        ("J2359-0001", 359.99, -0.02, True),
        ("DESI-047.5128-44.2451", 200.0, 10.0, True),  # says nothing that is understood
    ],
)
def test_a_name_contradicts_a_position_beyond_its_own_digits(name, ra, dec, fits):
    assert (j_name_fault(name, ra, dec) == "") == fits


def test_only_a_bright_extended_galaxy_within_reach_is_a_match():
    objects = {
        "ra": np.array([150.0, 150.0, 160.0, 170.0]), "dec": np.array([1.0, 1.0 + 1 / 3600, 2.0, 3.0]),
        "type": np.array(["PSF", "DEV", "SER", "SER"], object), "mag_z": np.array([17.0, 19.0, 20.9, 21.1]),
    }  # fmt: skip
    found = match(
        np.array([150.0, 160.0, 160.0, 170.0]),
        np.array([1.0, 2.0 + 1.4 / 3600, 2.0 + 1.6 / 3600, 3.0]),
        objects,
    )
    assert found.row.tolist() == [1, 2, -1, -1]
    assert found.separation_arcsec[:2] == pytest.approx([1.0, 1.4], abs=1e-3)
    assert "1.6 arcsec away" in found.fault[2] and "z = 21.1" in found.fault[3] and not found.fault[:2].any()
    nothing = {k: v[:0] for k, v in objects.items()}
    assert "nothing within" in match(np.array([150.0]), np.array([1.0]), nothing).fault[0]


def test_the_lights_centroid_decides_whether_the_position_is_right():
    y, x = np.mgrid[:64, :64]
    rng = np.random.default_rng(1)

    def stamp(dx):
        noise = rng.normal(0, 0.01, (3, 64, 64))
        core = np.exp(-0.5 * ((x - 32 - dx) ** 2 + (y - 32) ** 2) / 9) + 0.3 * np.exp(
            -0.5 * ((x - 55) ** 2 + (y - 32) ** 2) / 9
        )
        return (noise + core).astype(np.float32)

    assert centroid_fault(stamp(0.0), 32.0, 32.0, 0.01) == ""
    assert centroid_fault(stamp(2.5), 32.0, 32.0, 0.01) == ""
    assert "1.31 arcsec off" in centroid_fault(stamp(5.0), 32.0, 32.0, 0.01)
    assert "no light" in centroid_fault(rng.normal(0, 0.01, (3, 64, 64)), 32.0, 32.0, 0.01)


def test_an_arcs_expected_snr_is_that_of_its_light_over_a_ring_of_seeing():
    """A point source at the depth has an SNR of 5; a ring of ten noise areas a root of ten less."""
    fwhm, psfsize = np.array([1.0]), np.array([1.3])
    theta = 10 * 4 * np.pi * psfsize**2 / (8 * np.log(2)) / (2 * np.pi * fwhm)
    snr = expected_arc_snr(theta, np.array([24.5]), fwhm, psfsize, np.array([24.5]), magnification=1.0)
    assert snr == pytest.approx(5 / np.sqrt(10))
    nan = np.nan
    found = classify(np.array([2.0, 2.0, 2.0, 1.0, nan]), np.array([30.0, 20.0, nan, 99.0, 30.0]))
    assert found.tolist() == [
        "resolved, bright", "resolved, faint", "resolved, brightness unknown", "blended", "unknown",
    ]  # fmt: skip
