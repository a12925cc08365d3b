"""The report's pictures: what they show, which way up, and which stamps are chosen."""

import base64
import io

import numpy as np
from fabricate import EXPERIMENT
from matplotlib.image import imread

from darkhaloscope.report.pictures import lupton_rgb
from darkhaloscope.validation.examples import CHOICE, choose, read_choice
from evaluation.gallery import _png, extremes, galleries, pictures
from evaluation.scores import Scores
from evaluation.workspace import Missing, read_workspace

PARTS = f"{EXPERIMENT.variant}/{EXPERIMENT.experiment_id}"


def decoded(uri):
    image = imread(io.BytesIO(base64.b64decode(uri.split(",")[1])), format="png")
    return (image[::-1, :, :3] * 255).round().astype(np.uint8)


def test_the_pictures_show_the_coadd_without_the_arc_the_arc_and_their_sum(run):
    root = str(run / "phase4c" / PARTS)
    arcs, controls = choose(read_choice(root), 2, 1)
    injected, control = pictures(root, [arcs[-1], controls[0]], EXPERIMENT, {arcs[-1]: 1.5})
    assert (injected.logit, control.logit) == (1.5, None)
    coadd, arc, stamp = (decoded(p).astype(int) for p in (injected.coadd, injected.arc, injected.stamp))
    radius = np.hypot(*np.mgrid[-32:32, -32:32]) * 0.262
    ring = np.abs(radius - injected.facts["theta_e_arcsec"]) < 0.3
    far = radius > 6
    assert stamp[ring].sum() > 1.1 * coadd[ring].sum()  # the arc is in the stamp and not in the coadd
    assert arc[ring].sum() > 3 * arc[far].mean() * arc[ring].size
    assert np.abs(coadd[far] - stamp[far]).max() <= 3  # of 255: the faint wings of the source
    assert control.coadd == control.stamp
    assert control.arc != control.coadd


def test_pictures_are_drawn_with_north_up():
    image = np.zeros((3, 64, 64))
    image[:, 50:, :] = 1.0  # high y
    top_row_of_the_file = decoded(_png(image))[-1]
    assert np.array_equal(top_row_of_the_file, lupton_rgb(image)[-1])
    assert top_row_of_the_file.max() == 255 > 50 > decoded(_png(image))[0].max()


def test_stamps_are_chosen_over_the_whole_range_of_arc_snr():
    n = 100
    rows = {name: np.zeros(n) for name in CHOICE}
    rows |= {
        "task_id": np.array([f"{i:032x}" for i in range(n)], object),
        "cutout_ok": (np.arange(n) > 3).astype(int),
        "label": 1 - np.arange(n) % 2,
        "region_split": np.array(["test"] * 60 + ["train"] * 40, object),
        "arc_snr": np.arange(n, dtype=float),
    }
    rows["arc_snr"][10] = np.nan
    arcs, controls = choose(rows, 5, 3)
    assert [int(t, 16) for t in arcs] == [4, 18, 32, 44, 58]
    assert [int(t, 16) for t in controls] == [5, 7, 9]
    rows["region_split"][:] = "train"
    assert int(choose(rows, 5, 3)[0][-1], 16) == 98
    rows["cutout_ok"][:] = 0
    assert choose(rows) == ([], [])


def test_the_worst_mistakes_are_the_extreme_logits_of_each_class():
    columns = {
        "task_id": np.array(list("abcdef"), object),
        "label": np.array([0, 0, 1, 1, 1, 0]),
        "logit": np.array([3.0, -1, -5, -4, 2, 9], np.float32),
        "arc_snr": np.array([50, 50, np.nan, 11, 30, 1]),
    }
    controls, arcs = extremes(Scores(columns, {}, "", {}), 10.0)
    assert controls[2] == ["f", "a", "b"]
    assert arcs[2] == ["d", "e"]  # c has no measured arc


def test_damaged_scores_cost_the_pictures_their_logits_not_silently(copy):
    part = next((copy / "scores").rglob("*.parquet"))
    part.write_bytes(b"PAR1")
    found = galleries(read_workspace(str(copy)))
    assert isinstance(found, Missing)
    assert part.name in found.reason
