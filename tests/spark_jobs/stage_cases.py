"""The experiment and the command line that the stages are tested with, and what their stamps are compared by."""

import argparse
from pathlib import Path

from darkhaloscope.dataset import read_table
from darkhaloscope.experiment import from_dict
from darkhaloscope.records import STAMPS

COMPARED = [n for n in STAMPS.names if n not in {"failure_reason", "metrics_reason", "experiment_id"}]


def options(root, **more) -> argparse.Namespace:
    base = {
        "output_s3": str(root),
        "test_limit": None,
        "partitions": 3,
        "overwrite": False,
        "take_over": False,
    }
    return argparse.Namespace(**(base | more))


def experiment_of(sky: Path, **injection):
    return from_dict(
        {
            "name": "t", "variant": "t", "experiment_id": "e", "seed": 3,
            "survey": {"source": str(sky)},
            "splits": {"train": 0.5, "val": 0.25, "test": 0.25},
            "injection": {"replicates": 2, "n_total_per_split": 1000} | injection,
            "stamps": {"bricks_per_chunk": 4},
            "limits": {"max_failed_fraction": 0.5},
            "pack": {"shard_mb": 0.3, "rows_per_group": 16},
        },
        "test",
    )  # fmt: skip


def stamps_by_id(root: str) -> dict[str, tuple]:
    """Every column of every row; of a failure's reason, which names paths, only whether there is one."""
    table = read_table(root).to_pylist()
    assert len({r["task_id"] for r in table}) == len(table)
    return {r["task_id"]: (*tuple(r[n] for n in COMPARED), bool(r["failure_reason"])) for r in table}
