import numpy as np
import pytest
from scipy import stats

from darkhaloscope.draws import digest, digests, hex_digits, keys_of, normals, normals_at, uniforms

IDS = [digest("test", i) for i in range(3000)]


def test_a_draw_depends_on_its_id_stream_and_column_alone():
    together = uniforms(IDS[:10], 3, 8)
    assert np.array_equal(together[4:5], uniforms(IDS[4:5], 3, 8))
    assert np.array_equal(together[:, :2], uniforms(IDS[:10], 3, 2))
    assert not np.array_equal(together, uniforms(IDS[:10], 4, 8))


def test_golden_draws_are_the_same_on_every_machine():
    assert digest("a", 1, 0.5) == "5974eae8ff74dc680282564fcdd874e2"
    assert uniforms(["000102030405060708090a0b0c0d0e0f"], 1, 2)[0].tolist() == [
        0.5317513344295838,
        0.9640516878489852,
    ]


def test_draws_are_uniform_open_and_independent():
    u = uniforms(IDS, 0, 4)
    assert u.min() > 0 and u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 0.08


def test_normals_are_normal():
    assert stats.kstest(normals(IDS, 0, 4).ravel(), "norm").pvalue > 1e-3


def test_digest_tells_apart_values_and_types():
    assert len({digest(1), digest("1"), digest(1.0), digest(1, 2), digest((1, 2))}) == 5


@pytest.mark.parametrize("count", [1, 7, 64, 65, 300])
def test_many_rows_at_once_have_the_bits_of_numpys_generator(count):
    for one, drawn in zip(IDS[:5], uniforms(IDS[:5], 9, count), strict=True):
        raw = np.random.Philox(key=int(one, 16), counter=9 << 192).random_raw(count)
        np.testing.assert_array_equal(drawn, ((raw >> np.uint64(12)).astype(float) + 0.5) * 2.0**-52)


def test_ids_of_rows_depend_on_every_number_and_on_what_is_shared():
    numbers = [
        np.array(column)
        for column in zip((1, 2, -1, 0), (2, 2, -1, 0), (1, 2, -1, 1), (1, 3, -1, 0), strict=True)
    ]
    found = digests(digest("shared"), *numbers)
    assert len(set(map(tuple, found.tolist()))) == 4
    np.testing.assert_array_equal(digests(digest("shared"), *(n[2:3] for n in numbers)), found[2:3])
    assert not (digests(digest("other"), *numbers) == found).any()


def test_ids_are_read_as_they_are_written():
    keys = keys_of(IDS)
    assert [bytes(row).decode() for row in hex_digits(keys)] == IDS
    assert keys_of(keys) is keys
    np.testing.assert_array_equal(uniforms(keys[:9], 2, 3), uniforms(IDS[:9], 2, 3))


def test_some_draws_of_an_id_are_those_of_all_of_them():
    one, at = digest("a stamp"), np.array([0, 3, 4, 63, 64, 9_000])
    assert np.array_equal(normals_at(one, 2, at), normals([one], 2, 12_288)[0, at])
    assert normals_at(one, 2, at[:0]).shape == (0,)
