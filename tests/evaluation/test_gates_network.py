"""Gates about a network: which light it is shown, what it must stay low on, and how it is judged."""

import numpy as np
import pytest
import torch
from gate_cases import GATED, SIZE, make_pixels, make_rows, write_pack

from evaluation.gates.changed import blob_of, bright_stars, empty_sky, ring_of, shuffled
from evaluation.gates.measure import measure
from evaluation.gates.network import network_gates
from evaluation.gates.rows import read_rows
from training.preprocess import Preprocessing

torch.set_num_threads(1)


@pytest.fixture
def arc():
    """Two bright spots at 6 pixels from (12, 11), redder on one side; (band, y, x) float32."""
    image = np.zeros((3, 25, 25), np.float32)
    image[:, 11, 18] = [1.0, 2.0, 3.0]
    image[:, 11, 6] = [0.5, 0.5, 0.5]
    return image


def test_a_ring_has_the_arc_s_flux_and_radius_and_no_direction(arc):
    ring = ring_of(arc, 12.0, 11.0)
    np.testing.assert_allclose(ring.sum(axis=(1, 2)), arc.sum(axis=(1, 2)), rtol=1e-6)
    at_six = ring[1, 11, 18], ring[1, 11, 6], ring[1, 5, 12], ring[1, 17, 12]
    np.testing.assert_allclose(at_six, at_six[0], rtol=1e-6)
    assert ring[1, 11, 12] == 0


def test_a_blob_has_the_arc_s_flux_where_the_arc_is_brightest(arc):
    blob = blob_of(arc, np.array([0.9, 0.9, 0.9]))
    np.testing.assert_allclose(blob.sum(axis=(1, 2)), arc.sum(axis=(1, 2)), rtol=1e-5)
    assert np.unravel_index(np.argmax(blob[1]), blob.shape[1:]) == (11, 18)


def test_a_shuffled_stamp_keeps_every_ring_s_pixels_and_colours(arc):
    image = arc + np.random.default_rng(0).normal(size=arc.shape).astype(np.float32)
    found = shuffled(image, 12.0, 11.0, np.random.default_rng(1))
    assert (found != image).any()
    y, x = np.mgrid[:25, :25]
    ring = np.rint(np.hypot(x - 12, y - 11)) == 6
    colours = lambda stamp: sorted(map(tuple, stamp[:, ring].T.tolist()))  # noqa: E731
    assert colours(found) == colours(image)
    np.testing.assert_array_equal(shuffled(arc * 0 + 1, 12.0, 11.0, np.random.default_rng(1)), arc * 0 + 1)


def test_an_empty_sky_has_its_noise_and_a_star_outshines_it():
    sky, rng = np.full((4, 3), 0.01), np.random.default_rng(0)
    assert empty_sky(sky, 32, rng).std() == pytest.approx(0.01, rel=0.05)
    stars = bright_stars(sky, np.full((4, 3), 1.0), 32, rng)
    assert (stars.max(axis=(1, 2, 3)) > 1e3).all()
    assert np.isfinite(stars).all()


class Scorer(torch.nn.Module):
    """A "network" that is a formula: what it looks at is known."""

    def __init__(self, formula):
        super().__init__()
        self.formula, self.preprocessing = formula, Preprocessing(size=SIZE)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, stamps, sky_sigma=None, meta=None):
        return self.formula(stamps)


def lopsided(stamps):
    """How much brighter the sky's two sides are than one another: what an arc does, a ring does not."""
    blue = torch.asinh(stamps[:, 0] / 0.004)
    rest = (blue - blue.flip(-1)).abs() + (blue - blue.flip(-2)).abs()
    return rest[:, 6:18, 6:18].clamp(max=4).mean(dim=(1, 2))


def total_light(stamps):
    return stamps.sum(dim=(1, 2, 3)).nan_to_num()


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    columns = make_rows(900, seed=3)
    return write_pack(tmp_path_factory.mktemp("network"), columns, make_pixels(columns, seed=3))


def judged(pack, formula):
    model = Scorer(formula).eval()
    rows = read_rows(pack, GATED, 20_000)
    return {g.name: g for g in network_gates(rows, measure(rows, model, "test", 200, progress=False), model)}


def test_a_network_that_counts_light_fails_the_gates_that_an_arc_s_shape_must_pass(pack):
    gates = judged(pack, total_light)
    assert gates["blob like host"].verdict == "fail"
    assert gates["blob like host"].value == pytest.approx(1, abs=0.05), "a blob is as much light as an arc"
    assert gates["bright star"].verdict == "fail"
    assert (gates["NaN"].verdict, gates["NaN"].value) == ("pass", 0), "no light at all: low"
    assert gates["empty sky"].verdict == gates["zeros"].verdict == "pass"
    assert gates["arc removed"].verdict != "fail"


def test_a_network_that_sees_shape_orders_arc_above_ring_and_its_score_falls_without_the_arc(pack):
    gates = judged(pack, lopsided)
    assert gates["arc above ring"].verdict == "pass"
    assert gates["ring above blob"].verdict == "fail", "a blob at one side is more lopsided than a ring"
    assert gates["arc removed"].verdict != "fail"
    assert gates["with arc: the network"].value > 0.6
    assert gates["zeros"].verdict == "pass"
    assert gates["NaN"].verdict == "pass", "refused"
    assert gates["NaN"].value == 1


def test_a_network_that_is_high_where_there_is_nothing_fails_every_stamp_that_shows_nothing(pack):
    gates = judged(pack, lambda stamps: -stamps.nan_to_num().abs().sum(dim=(1, 2, 3)))
    failed = {n for n, g in gates.items() if g.verdict == "fail"}
    assert failed >= {"empty sky", "zeros", "NaN"}
    assert gates["bright star"].verdict == "pass"


def test_a_network_that_knows_the_class_by_another_mark_fails_once_the_arc_is_taken_away(tmp_path):
    columns = make_rows(900, seed=4)
    pixels = make_pixels(columns, seed=4)
    pixels[columns["label"] == 1, :, 0, 0] += 100
    gates = judged(write_pack(tmp_path, columns, pixels), lambda stamps: stamps[:, 0].amax(dim=(1, 2)))
    assert gates["arc removed"].verdict == gates["shuffled"].verdict == "fail"
    assert gates["arc above ring"].verdict == "fail", "nothing changes with the light: never above"
