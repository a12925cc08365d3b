from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_shards import SIZE, make_columns, write_shards

import training.data
from darkhaloscope.records import SAMPLES
from training.data import StampStream, World
from training.mixture import Mixture, showings
from training.preprocess import Preprocessing
from training.selection import POSITIVE, DataError
from training.shards import Shards, open_split

PREPROCESSING = Preprocessing(size=SIZE)
KIND = dict(zip(SAMPLES, range(len(SAMPLES)), strict=True))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Shards:
    """400 rows of all five kinds, in 50 row groups of 4 files: injections, controls, and a catalogue's."""
    root = tmp_path_factory.mktemp("mixed")
    files = [make_columns(100, i, "float16") for i in range(4)]
    for columns in files:
        for i in range(0, 100, 5):  # rows 0, 10, ...: controls; 5, 15, ...: positives
            kind = "real_positive" if i % 10 else ("mimic", "hard_negative")[i // 10 % 2]
            columns["sample"][i], columns["control_kind"][i] = kind, "catalogue"
    write_shards(root / "split=train", files, "float16")
    return open_split(str(root), "train")


def kinds_of(shards: Shards) -> dict[str, str]:
    """task_id -> what it is, read with the order of the files."""
    stream = StampStream(shards, PREPROCESSING, 100, 0, shuffle=False)
    ids = [t for b in stream for t in b.task_ids()]
    return {t: SAMPLES[k] for t, k in zip(ids, shards.kind, strict=True)}


def lanes(
    monkeypatch,
    shards: Shards,
    mixture: Mixture,
    epoch: int,
    ranks: int = 1,
    workers: int = 1,
    pool: int = 20,
):
    """What each worker of each rank is shown in an epoch: a list of batches of task_ids."""
    shown = []
    for rank in range(ranks):
        stream = StampStream(shards, PREPROCESSING, 8, 42, epochs=(epoch, epoch + 1), workers=workers,
                             world=World(rank, ranks), mixture=mixture, pool_rows=pool)  # fmt: skip
        for worker in range(workers):
            info = SimpleNamespace(id=worker, num_workers=workers)
            monkeypatch.setattr(training.data, "get_worker_info", lambda info=info: info)
            shown.append([b.task_ids() for b in stream])
        assert {len(lane) for lane in shown} == {stream.steps_per_epoch // workers}
    monkeypatch.undo()
    return shown


def weights(**given: float) -> Mixture:
    return Mixture(tuple(given.get(kind, 1.0) for kind in SAMPLES))


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (2, 3), (5, 1), (1, 5), (8, 6)])
def test_each_kind_is_shown_as_often_as_its_weight_says_whatever_the_world(
    monkeypatch, mixed, ranks, workers
):
    mixture = weights(hard_negative=5, mimic=2, random_negative=0.5, real_positive=0)
    kinds, totals = kinds_of(mixed), Counter()
    for epoch in (3, 4):
        shown = Counter(
            t for lane in lanes(monkeypatch, mixed, mixture, epoch, ranks, workers) for b in lane for t in b
        )
        by_kind = {k: {shown[t] for t, kind in kinds.items() if kind == k} for k in SAMPLES}
        assert by_kind == {"synthetic_positive": {1}, "real_positive": {0}, "random_negative": {0, 1},
                           "hard_negative": {5}, "mimic": {2}}  # fmt: skip
        totals += shown
    assert {totals[t] for t, kind in kinds.items() if kind == "random_negative"} == {1}, "by turns"


def test_a_weight_between_whole_numbers_is_exact_over_the_epochs(monkeypatch, mixed):
    totals, kinds = Counter(), kinds_of(mixed)
    for epoch in range(4):
        shown = Counter(
            t for lane in lanes(monkeypatch, mixed, weights(mimic=2.25), epoch) for b in lane for t in b
        )
        assert sum(shown[t] for t, kind in kinds.items() if kind == "mimic") == round(2.25 * 20)
        totals += shown
    assert {totals[t] for t, kind in kinds.items() if kind == "mimic"} == {9}


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (1, 5), (5, 1)])
def test_repeats_of_a_row_are_spread_through_the_epoch_and_never_back_to_back(
    monkeypatch, mixed, ranks, workers
):
    """Also where as many readers as repeats could show them all at the same moment."""
    shown = lanes(monkeypatch, mixed, weights(hard_negative=5), 0, ranks, workers, pool=5)
    steps = len(shown[0])
    when: dict[str, list[float]] = {}
    for lane in shown:
        for step, batch in enumerate(lane):
            assert len(set(batch)) == len(batch), "twice in one batch"
            for t in batch:
                when.setdefault(t, []).append(step / steps)
    hard = [sorted(when[t]) for t, kind in kinds_of(mixed).items() if kind == "hard_negative"]
    apart = np.array([np.diff([*one, one[0] + 1]) for one in hard])
    assert apart.shape[1] == 5
    assert np.median(apart) == pytest.approx(0.2, abs=0.05)
    assert apart.min() > 0.05


def test_equal_seeds_give_equal_mixtures_and_others_differ(mixed):
    def epoch(seed: int, number: int) -> list[str]:
        mixture = weights(random_negative=0.3, hard_negative=3)
        stream = StampStream(mixed, PREPROCESSING, 8, seed, epochs=(number, number + 1), mixture=mixture)
        return [t for b in stream for t in b.task_ids()]

    assert epoch(1, 0) == epoch(1, 0)
    assert Counter(epoch(1, 0)) != Counter(epoch(1, 1))
    assert Counter(epoch(1, 0)) != Counter(epoch(2, 0))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_mixture_resumed_in_mid_epoch_goes_on_with_the_next_batch(monkeypatch, mixed, workers):
    def batches(position: int) -> list[list[str]]:
        stream = StampStream(mixed, PREPROCESSING, 8, 42, epochs=(1, 3), position=position, workers=workers,
                             mixture=weights(random_negative=0.3, hard_negative=4), pool_rows=20)  # fmt: skip
        got = []
        for worker in range(workers):
            info = SimpleNamespace(id=worker, num_workers=workers)
            monkeypatch.setattr(training.data, "get_worker_info", lambda info=info: info)
            got.append(list(stream))
        return [
            got[k % workers][k // workers].task_ids() for k in range(2 * stream.steps_per_epoch - position)
        ]

    whole = batches(0)
    for position in (1, 17, len(whole) // 2 - 1):
        assert batches(position) == whole[position:]


@pytest.mark.parametrize("ratio", [0.25, 1, 3])
def test_a_target_ratio_thins_the_class_in_surplus_only(mixed, ratio):
    rows = mixed.kind_rows
    stream = StampStream(mixed, PREPROCESSING, 8, 1, mixture=Mixture(negatives_per_positive=ratio))
    facts = stream.facts()
    assert facts["negatives_per_positive"] == pytest.approx(ratio, rel=0.02)
    full = POSITIVE if ratio <= 1 else ~POSITIVE
    assert (stream.shown[full] == rows[full]).all()
    assert (stream.shown <= rows).all()
    ids = [t for b in stream for t in b.task_ids()]
    assert len(ids) == len(set(ids)) == stream.shown.sum() == sum(facts["shown"].values())


def test_a_mixture_without_one_class_says_what_it_would_show(mixed):
    with pytest.raises(DataError, match=r"0 positives and 200 negatives.*40 real_positive x 0"):
        StampStream(mixed, PREPROCESSING, 8, 1, mixture=weights(synthetic_positive=0, real_positive=0))


def test_a_negative_weight_is_refused():
    with pytest.raises(DataError, match="0 or more"):
        showings(weights(mimic=-1), np.ones(5), "here")


def test_rows_of_a_catalogue_pass_bounds_on_the_injection_they_do_not_have(tmp_path):
    columns = make_columns(40, 1)
    columns["theta_over_psf"] = np.full(40, 0.3)
    columns["metrics_ok"] = np.zeros(40, int)
    for i in (0, 1):
        columns["control_kind"][i] = "catalogue"
        columns["sample"][i] = ("mimic", "real_positive")[i]
        columns["theta_over_psf"][i] = np.nan
    columns["theta_over_psf"][[10, 11]] = 0.8
    columns["theta_over_psf"][[20, 21]] = 0.8
    columns["metrics_ok"][[10, 11]] = 1
    columns["arc_snr"] = np.full(40, 20.0)
    columns["arc_snr"][11] = 3.0
    write_shards(tmp_path / "split=train", [columns])
    bounds = (("theta_over_psf", 0.5), ("arc_snr", 5.0))
    for metrics_ok, kept in ((False, [0, 1, 10, 20, 21]), (True, [0, 1, 10])):
        shards = open_split(str(tmp_path), "train", bounds, metrics_ok=metrics_ok)
        assert set(kinds_of(shards)) == {columns["task_id"][i] for i in kept}
    assert str(shards.selection) == "cutout_ok and theta_over_psf >= 0.5 and arc_snr >= 5 and metrics_ok"


def test_several_data_sets_are_read_as_one(tmp_path):
    for i, name in enumerate(("injections", "lenses")):
        columns = make_columns(20, i)
        if i:
            columns["sample"] = ["mimic", "real_positive"] * 10
        write_shards(tmp_path / name / ("split=train" if i else ""), [columns])
    shards = open_split([str(tmp_path / "injections"), str(tmp_path / "lenses")], "train")
    assert shards.facts()["samples"] == {"synthetic_positive": 10, "real_positive": 10, "random_negative": 10,
                                         "hard_negative": 0, "mimic": 10}  # fmt: skip
    assert len(kinds_of(shards)) == 40


def test_a_sample_that_contradicts_its_label_is_refused(tmp_path):
    columns = make_columns(8, 1)
    columns["sample"][1] = "mimic"
    write_shards(tmp_path / "split=train", [columns])
    with pytest.raises(DataError, match=r"part-00000.*1 rows whose sample.*'mimic' with label 1"):
        open_split(str(tmp_path), "train")
