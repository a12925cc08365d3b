import pytest
import torch

from training import speed
from training.speed import Clock, peak_flops


def test_utilisation_is_the_networks_operations_over_the_peak(monkeypatch):
    times = iter([0.0, 1.0, 3.0, 10.0])  # began, waiting from 1 to 3, asked at 10
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(times))
    clock = Clock()
    with clock.waiting():
        pass
    clock.rows = 500
    assert clock.figures(flops=2_000, peak=1e6, ranks=4) == {
        "images_per_s": 200.0, "data_wait_share": 0.2, "train_seconds": 10.0,
        "flops_utilisation": pytest.approx(3 * 2_000 * 50 / 1e6),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("NVIDIA GH200 480GB", "bf16", 989e12),
        ("NVIDIA H100 80GB HBM3", "fp32", 67e12),
        ("NVIDIA A100-SXM4-80GB", "fp16", 312e12),
    ],
)
def test_a_known_gpu_has_the_peak_of_its_data_sheet(monkeypatch, name, precision, expected):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda", 0), precision)[0] == expected


def test_another_device_is_measured_and_says_so():
    value, where = peak_flops(torch.device("cpu"), "fp32")
    assert value > 1e8
    assert "measured" in where
