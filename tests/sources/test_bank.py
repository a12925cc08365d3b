import functools
import http.server
import threading

import h5py
import numpy as np
import pytest
from source_cases import PIXEL, disc

from darkhaloscope.draws import digest
from darkhaloscope.sources.bank import SPLITS, BankError, split_of, write_bank
from darkhaloscope.sources.draw import draw_sources, mirrored
from darkhaloscope.sources.open import open_bank
from darkhaloscope.sources.synthetic import synthetic_bank

N = 12


def bank_file(path, n=N, **replace):
    images = np.stack([disc(32, 3.0 + 0.2 * i) for i in range(n)]) * 7
    meta = {
        "index": np.arange(50, 50 + n),
        "hlr_arcsec": np.full(n, 0.1),
        "hlr_image_arcsec": np.full(n, 0.12),
        "clumpiness": np.zeros(n),
        "split": np.array(SPLITS, object)[np.arange(n) % 3],
        "g_r": np.linspace(0, 1, n),
    } | replace
    write_bank(path, images, meta, PIXEL, "test")
    return path


def test_a_bank_is_read_as_it_was_written(tmp_path):
    bank = open_bank(str(bank_file(tmp_path / "bank.h5")))
    assert len(bank.index) == N and bank.index.pixel_arcsec == PIXEL
    np.testing.assert_array_equal(bank.index.index, np.arange(50, 50 + N))
    np.testing.assert_array_equal(bank.index.ids("val"), [1, 4, 7, 10])
    np.testing.assert_allclose(bank.index.g_r, np.linspace(0, 1, N), atol=1e-6)
    assert np.isnan(bank.index.r_z).all()
    wanted = np.array([7, 2, 7, 0])
    [(images, share)] = bank.layers(wanted)
    np.testing.assert_allclose(images.sum((1, 2)), 1, atol=1e-5)
    for image, i in zip(images, wanted, strict=True):
        np.testing.assert_allclose(image, disc(32, 3.0 + 0.2 * i) / disc(32, 3.0 + 0.2 * i).sum(), atol=1e-6)
    assert (share == 1).all()
    assert not list(tmp_path.glob("*.tmp"))


def test_the_file_has_the_layout_of_the_earlier_generations(tmp_path):
    with h5py.File(bank_file(tmp_path / "bank.h5")) as file:
        assert file["images"].dtype == np.float32 and file["images"].shape == (N, 32, 32)
        assert {"index", "hlr_arcsec", "clumpiness"} <= set(file["meta"])
        assert file.attrs["src_pixscale_arcsec"] == PIXEL and file.attrs["stamp_size"] == 32


def test_two_components_are_layers_whose_shares_add_up(tmp_path):
    n, path = 3, tmp_path / "bank.h5"
    both = np.stack([np.stack([disc(32, 6.0), disc(32, 2.0)])] * n)
    meta = {
        "index": np.arange(n), "hlr_arcsec": np.ones(n), "hlr_image_arcsec": np.ones(n),
        "clumpiness": np.zeros(n), "split": np.array(SPLITS, object),
        "young_g": [0.6] * n, "young_r": [0.4] * n, "young_z": [0.2] * n,
    }  # fmt: skip
    write_bank(path, both.sum(1), meta, PIXEL, "test", both)
    (old, old_share), (young, young_share) = open_bank(str(path)).layers(np.array([2, 0]))
    np.testing.assert_allclose(old_share + young_share, 1)
    np.testing.assert_allclose(young_share, [[0.6, 0.4, 0.2]] * 2, atol=1e-6)
    assert young.max() > old.max()


def test_the_digest_is_of_the_content(tmp_path):
    first, again = (open_bank(str(bank_file(tmp_path / n))).index.digest for n in ("a.h5", "b.h5"))
    other = open_bank(str(bank_file(tmp_path / "c.h5", hlr_arcsec=np.full(N, 0.11)))).index.digest
    assert first == again != other


def truncated(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def text(path):
    path.write_text("no bank")


def other_layout(path):
    path.unlink()
    with h5py.File(path, "w") as file:
        file["galaxies"] = np.zeros(3)


def lengths(path):
    with h5py.File(path, "a") as file:
        del file["meta/clumpiness"]
        file["meta/clumpiness"] = np.zeros(3)


def absurd_size(path):
    with h5py.File(path, "a") as file:
        file["meta/hlr_arcsec"][2] = -1


def one_split(path):
    with h5py.File(path, "a") as file:
        file["meta/split"][:] = b"train"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "not an HDF5 file, or cut off"),
        (text, "not an HDF5 file"),
        (other_layout, "lacks .*images.*meta/hlr_arcsec"),
        (lengths, "do not belong together"),
        (absurd_size, "positive and finite"),
        (one_split, "each split needs some"),
        (lambda path: path.unlink(), "no such source bank; build one"),
    ],
)
def test_a_bank_that_cannot_be_used_is_refused_when_opened(tmp_path, spoil, message):
    path = bank_file(tmp_path / "bank.h5")
    spoil(path)
    with pytest.raises(BankError, match=message):
        open_bank(str(path))


def test_an_empty_image_is_not_written(tmp_path):
    images = np.stack([disc(32, 3.0), np.zeros((32, 32))])
    with pytest.raises(BankError, match=r"images \[1\] have flux \[0.0\]"):
        write_bank(tmp_path / "bank.h5", images, {"index": [0, 1]}, PIXEL, "test")
    assert not list(tmp_path.iterdir())


def test_an_id_of_another_bank_is_refused(tmp_path):
    with pytest.raises(BankError, match=f"0 to {N} of a bank of {N}"):
        open_bank(str(bank_file(tmp_path / "bank.h5"))).layers(np.array([0, N]))


def test_a_remote_bank_is_copied_once(tmp_path):
    bank_file(tmp_path / "bank.h5")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(args)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/bank.h5"
        assert len(open_bank(url).index) == N
        n = len(asked)
        assert open_bank(url).layers(np.array([3]))[0][0].sum() == pytest.approx(1, abs=1e-5)
        assert len(asked) == n
        with pytest.raises(BankError, match="no such source bank"):
            open_bank(url.replace("bank.h5", "none.h5"))
    finally:
        server.shutdown()


def test_a_galaxys_split_is_its_own_and_the_fractions_are_kept():
    index = np.arange(4000)
    split = split_of(index, "real x", (0.7, 0.15, 0.15))
    np.testing.assert_array_equal(split_of(index[::-1], "real x", (0.7, 0.15, 0.15))[::-1], split)
    shares = [(split == s).mean() for s in SPLITS]
    np.testing.assert_allclose(shares, [0.7, 0.15, 0.15], atol=0.03)
    assert (split_of(index, "real y", (0.7, 0.15, 0.15)) != split).any()


def test_a_row_draws_only_from_its_hosts_split_and_evenly():
    index = synthetic_bank().index
    ids = [digest("row", i) for i in range(3000)]
    split = np.array(SPLITS, object)[np.arange(3000) % 3]
    chosen = draw_sources(index, ids, split)
    np.testing.assert_array_equal(index.split[chosen], split)
    for name in SPLITS:
        counts = np.bincount(chosen[split == name], minlength=len(index))[index.ids(name)]
        assert counts.min() > 0 and counts.std() < 2 * np.sqrt(counts.mean())
    again = draw_sources(index, ids[::-1], split[::-1])[::-1]
    np.testing.assert_array_equal(again, chosen)
    assert 0.45 < mirrored(ids).mean() < 0.55


def test_hosts_outside_the_splits_get_no_source():
    with pytest.raises(ValueError, match="no galaxies of split 'guard'"):
        draw_sources(synthetic_bank().index, [digest("row")], np.array(["guard"], object))


def test_the_embedded_bank_is_fit_for_use():
    bank = synthetic_bank()
    index = bank.index
    assert all(len(index.ids(s)) > 10 for s in SPLITS)
    assert 0.12 < np.median(index.hlr_arcsec) < 0.25 and index.hlr_arcsec.min() > 0.04
    assert np.isfinite([index.g_r, index.r_z, index.axis_ratio]).all()
    assert (index.clumpiness > 0.05).mean() > 0.4
    layers = bank.layers(np.arange(len(index)))
    assert len(layers) == 2
    np.testing.assert_allclose(sum(share for _, share in layers), 1)
    assert (layers[1][1][:, 0] > layers[1][1][:, 2]).all()  # young light is blue
    for images, _ in layers:
        np.testing.assert_allclose(images.sum((1, 2)), 1, atol=1e-4)
        edge = images.sum((1, 2)) - images[:, 1:-1, 1:-1].sum((1, 2))
        assert edge.max() < 0.03
    assert open_bank("") is bank
