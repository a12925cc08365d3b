"""Planted lenses are lenses: two renderers that share no code agree on them, and they end where they should."""

import fitsio
import numpy as np
import pytest
from survey_testing import BRICK, write_brick

from darkhaloscope.lensing.psf import Psf
from darkhaloscope.lensing.render import render
from darkhaloscope.lensing.scene import Scene
from darkhaloscope.survey.bricks import brick_centre, parse_names
from darkhaloscope.survey.coadds import file_path
from darkhaloscope.survey.photometry import flux
from local_spark.planted import COLOURS, HALF, PlantedLens, arc, draw_lenses, plant

pytest.importorskip("lenstronomy", reason="lenstronomy is not installed")

RA, DEC = (float(v[0]) for v in brick_centre(*parse_names([BRICK])))
LENS = PlantedLens("a", RA, DEC, 1.8, 0.75, 0.6, 0.3, -0.2, 0.25, 21.0)


def test_the_arc_is_what_the_librarys_renderer_draws():
    image = arc(LENS, "z", 1.1, 2.7, 0.3, -0.4)
    scene = Scene(
        x_lens=HALF + 0.3, y_lens=HALF - 0.4, theta_e_arcsec=LENS.theta_e_arcsec, lens_q=LENS.lens_q,
        lens_phi_rad=LENS.lens_phi, shear=0.0, shear_phi_rad=0.0, src_x_arcsec=LENS.src_x_arcsec,
        src_y_arcsec=LENS.src_y_arcsec, src_reff_arcsec=LENS.src_reff_arcsec, src_q=1.0, src_phi_rad=0.0, src_n=1.0,
        flux=[[float(flux(np.array(LENS.src_mag_r + COLOURS["z"])))]],
    )  # fmt: skip
    ours = render(scene, Psf.moffat([[1.1]], 2.7), image.shape).image[0, 0]
    assert np.abs(image - ours).max() < 0.02 * ours.max()
    assert image.sum() == pytest.approx(ours.sum(), rel=0.01)


def test_a_lens_is_added_at_its_host_and_nowhere_else(tmp_path):
    write_brick(tmp_path / "sky", BRICK)
    (tmp_path / "sky/sweep").mkdir()
    beyond = PlantedLens("b", RA + 0.5, DEC, 1.8, 0.75, 0.6, 0.3, -0.2, 0.25, 21.0)
    assert plant(tmp_path / "sky", tmp_path / "out", BRICK, [LENS, beyond], 1) == [LENS]
    before, after = (
        fitsio.read(str(tmp_path / d / file_path(BRICK, "image", "r")), ext=1) for d in ("sky", "out")
    )
    added = after - before
    centre = (before.shape[0] - 1) // 2
    near = np.s_[centre - HALF : centre + HALF + 2, centre - HALF : centre + HALF + 2]
    assert added[near].sum() > 5 * float(flux(np.array(LENS.src_mag_r)))  # magnified
    added[near] = 0
    assert np.abs(added).max() < 0.004  # the compression's steps
    assert (tmp_path / "out/planted.csv").read_text().splitlines()[1].startswith("a,")


def test_the_same_seed_draws_the_same_lenses_on_distinct_hosts():
    hosts = {"ra": np.arange(10.0), "dec": np.zeros(10), "mag_r": np.full(10, 19.0)}
    lenses = draw_lenses(hosts, 6, 3)
    assert lenses == draw_lenses(hosts, 6, 3) != draw_lenses(hosts, 6, 4)
    assert len({v.ra for v in lenses}) == 6
