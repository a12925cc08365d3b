import numpy as np
import pytest

from training import order

SIZES = np.array([5, 8, 1, 8, 7, 8, 8, 3, 8, 8, 8, 2, 8, 8, 8, 8] * 4 + [4])


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("workers", [1, 2, 5, 8])
def test_the_shares_of_all_lanes_hold_every_row_once_and_differ_by_one_row(ranks, workers):
    shares = order.deal(SIZES, ranks * workers)
    rows = [[(int(v), r) for v, first, last in share for r in range(first, last)] for share in shares]
    assert sorted(row for one in rows for row in one) == [
        (v, r) for v, n in enumerate(SIZES) for r in range(n)
    ]
    sizes = [len(one) for one in rows]
    assert max(sizes) - min(sizes) <= 1
    assert all(one == sorted(one) for one in rows), "a lane reads in the order of the epoch"


def test_lanes_advance_through_the_epoch_together():
    sizes = np.full(1_000, 100)
    for share in order.deal(sizes, 7):
        progress = np.cumsum(share[:, 2] - share[:, 1]) / (share[:, 2] - share[:, 1]).sum()
        assert np.abs(progress - share[:, 0] / 1_000).max() < 0.02


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    def groups(count: int, seed: int, epoch: int) -> np.ndarray:
        return order.visit_order(order.group_places(count, seed, epoch), np.ones(count, int))[:, 0]

    first = groups(100, 42, 0)
    assert (first == groups(100, 42, 0)).all()
    assert sorted(first) == list(range(100))
    for other in (groups(100, 42, 1), groups(100, 43, 0)):
        assert (first != other).mean() > 0.8
    # frozen: a change here changes what every seed means
    assert groups(8, 42, 0).tolist() == [6, 2, 5, 1, 7, 3, 4, 0]


def test_visits_to_a_group_are_an_equal_part_of_the_epoch_apart():
    visits = np.full(200, 5)
    planned = order.visit_order(order.group_places(200, 1, 0), visits)
    for group in range(200):
        at = np.flatnonzero(planned[:, 0] == group)
        apart = np.diff([*at, at[0] + len(planned)])
        assert len(at) == 5
        assert apart.min() > 150, "a fifth of 1,000 visits, but for chance"


def test_turns_are_shared_out_evenly_and_completely():
    count, period = np.array([0, 1, 3, 7, 17]), 7
    for phase in range(period):
        each = np.array([order.in_turns(t, count, period, np.full(5, phase)) for t in range(2 * period)])
        for start in range(period):
            assert (each[start : start + period].sum(axis=0) == count).all()
        assert (each.max(axis=0) - each.min(axis=0) <= 1).all()


@pytest.mark.parametrize("lanes", [1, 3, 8])
@pytest.mark.parametrize("batch_size", [2, 7, 64, 10_000])
def test_every_lane_has_as_many_batches_none_empty_or_too_large(lanes, batch_size):
    rows = int(SIZES.sum())
    steps = order.steps_per_lane(rows, lanes, batch_size)
    for share in np.diff(order.edges(rows, lanes)):
        sizes = np.diff(order.edges(int(share), steps))
        assert sizes.sum() == share
        assert sizes.min() >= 1
        assert sizes.max() <= batch_size
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("pool_rows", [1, 10, 25, 10_000])
def test_pools_keep_every_segment_in_order_are_large_enough_and_hold_no_group_twice(pool_rows):
    group = np.concatenate([np.random.default_rng(i).permutation(len(SIZES)) for i in range(3)])
    lengths = SIZES[group]
    parts = order.pools(lengths, group, pool_rows)
    assert [i for p in parts for i in range(p.start, p.stop)] == list(range(len(group)))
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        assert len(set(group[part])) == part.stop - part.start
        assert lengths[part].sum() < pool_rows + SIZES.max()
        full = lengths[part].sum() >= pool_rows
        assert full or following is None or group[following.start] in group[part]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_delivered_counts_batches_taken_in_turn(workers):
    for position in range(13):
        taken = [0] * workers
        for k in range(position):
            taken[k % workers] += 1
        assert [order.delivered(position, w, workers) for w in range(workers)] == taken
