"""A galaxy that a survey has twice is kept once, however its rows are divided into files."""

import numpy as np
import pytest

from darkhaloscope.survey.duplicates import box, inside, keep_unique, touch

ARCSEC = 1 / 3600


def test_a_galaxy_that_is_there_twice_is_kept_once():
    ids = np.array([5 << 16, 7 << 16 | 1, 5 << 16, 7 << 16 | 2, 9 << 16])
    ra = np.array([0.0, 0.1 / 3600, 0.0, 0.2 / 3600, 359.9999])
    assert keep_unique(ids, ra, np.zeros(5)).tolist() == [True, False, False, False, False]
    assert keep_unique(ids[1::2], ra[1::2], np.zeros(2)).all(), "neighbours in one brick are two galaxies"
    assert keep_unique(ids[:1], ra[:1], np.zeros(1)).all() and not len(keep_unique(*[np.empty(0, int)] * 3))


def sky(seed, n=400):
    """Galaxies at the seam, at both poles and in a crowd, a third of them again in another brick, near by."""
    rng = np.random.default_rng(seed)
    ra = np.concatenate(
        [rng.normal(0, 20 * ARCSEC, n), rng.uniform(0, 360, 2 * n), rng.uniform(150, 150.02, n)]
    )
    polar = 90 - np.abs(rng.normal(0, 20 * ARCSEC, 2 * n))
    dec = np.concatenate(
        [rng.normal(0, 20 * ARCSEC, n), polar * np.repeat([1, -1], n), rng.uniform(2, 2.02, n)]
    )
    again = rng.random(4 * n) < 0.3
    step = rng.normal(0, 0.5 * ARCSEC, (2, again.sum()))
    ra2 = ra[again] + step[0] / np.maximum(np.cos(np.radians(dec[again])), 1e-5)
    ra, dec = np.append(ra, ra2) % 360, np.clip(np.append(dec, dec[again] + step[1]), -90, 90)
    ids = rng.permutation(len(ra)) << 16  # every galaxy in a brick of its own
    return ids, ra, dec


def brute_force(ids, ra, dec):
    a, d = np.radians(ra), np.radians(dec)
    xyz = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
    angle = 2 * np.arcsin(np.linalg.norm(xyz[:, None] - xyz, axis=2) / 2)
    return ids[~((angle <= np.radians(ARCSEC)) & (ids[:, None] > ids)).any(axis=1)]


@pytest.mark.parametrize("files", [1, 3, 11])
def test_files_that_look_only_at_what_lies_near_them_keep_what_one_file_would(files):
    ids, ra, dec = sky(files)
    order = np.argsort((ra * 7 + dec) % 360) if files > 1 else np.arange(len(ids))
    parts = np.array_split(order, files)
    boxes = [box(ra[p], dec[p]) for p in parts]
    kept = []
    for i, mine in enumerate(parts):
        others = [p for k, p in enumerate(parts) if k != i and touch(boxes[i], boxes[k])]
        near = [p[inside(boxes[i], ra[p], dec[p])] for p in others]
        rows = np.concatenate([mine, *near])
        kept.append(ids[mine][keep_unique(ids[rows], ra[rows], dec[rows])[: len(mine)]])
    expected = brute_force(ids, ra, dec)
    assert 0.5 * len(ids) < len(expected) < 0.9 * len(ids)
    assert np.array_equal(np.sort(np.concatenate(kept)), np.sort(expected))


def test_boxes_of_fields_apart_do_not_touch_and_those_across_the_seam_do():
    east, west = (box(np.array(a), np.array([0.0, 5.0])) for a in ([0.0, 10.0], [350.0, 359.9999]))
    far, next_row = (
        box(np.array([100.0, 110]), np.array([0.0, 5])),
        box(np.array([0.0, 10]), np.array([5.0001, 9])),
    )
    assert touch(east, west) and not touch(east, far) and touch(east, next_row)
    assert inside(east, np.array([359.9999, 359.0]), np.array([0.0, 0.0])).tolist() == [True, False]
