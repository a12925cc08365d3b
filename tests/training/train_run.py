"""A short run of training/train.py on the CPU, as a person would start it."""

from pathlib import Path

from training.train import main

FAST = ["--arch", "small_resnet", "--seed", "42", "--epochs", "3", "--batch_size", "16", "--lr", "3e-3",
        "--num_workers", "0", "--device", "cpu"]  # fmt: skip


def run(root: str, out: Path, *flags: str) -> int:
    return main(["--data", root, "--out_dir", str(out), *FAST, *flags])
