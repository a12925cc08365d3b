"""The loader on a GPU host, which has torch, pyarrow, numpy and the like, and nothing of the survey's tools."""

import os
import subprocess
import sys

import pytest
from tiny_shards import make_columns, write_shards

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"s3fs", "boto3", "botocore", "aiobotocore", "aiohttp", "astropy", "astropy_healpix",
                                  "fitsio", "pyspark", "pandas", "lenstronomy", "galsim", "sep"}:
            raise ImportError(f"{name} is not on a GPU host")

sys.meta_path.insert(0, Blocker())
"""
READ = """
from training.data import StampStream, make_loader
from training.preprocess import Preprocessing
from training.shards import open_split

if __name__ == "__main__":
    import training.train, training.make_shards, evaluation.study  # what bootstrap/gpu_host.sh asks for
    shards = open_split(sys.argv[1], "train")
    workers = int(sys.argv[2])
    stream = StampStream(shards, Preprocessing(size=16), 8, 1, workers=workers)
    print(sum(len(batch.label) for batch in make_loader(stream, workers)))
"""


def read(tmp_path, root: str, workers: int) -> str:
    script = tmp_path / "read.py"
    script.write_text(BLOCKED + READ)
    command = [sys.executable, str(script), root, str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_loader_needs_none_of_the_surveys_tools(tmp_path):
    write_shards(tmp_path / "split=train", [make_columns(40, 1)])
    assert read(tmp_path, str(tmp_path), 0) == "40"


@pytest.mark.parametrize("workers", [0, 2])
def test_s3_is_read_without_s3fs(tmp_path, s3_bucket, workers):
    root = f"{s3_bucket}/gpu-host-{workers}"
    write_shards(f"{root}/split=train", [make_columns(40, 1)])
    assert read(tmp_path, root, workers) == "40"


FAIL = """
from darkhaloscope import servers, storage

servers.PAUSES_S = (0.0,)
tries = []

def fails():
    tries.append(1)
    raise OSError("the server is out of order")

try:
    storage.retrying("s3://bucket/key", fails)
except storage.StorageError as error:
    print(len(tries), error)
"""


def test_a_server_that_fails_is_tried_again_where_no_web_client_is_installed(tmp_path):
    script = tmp_path / "fail.py"
    script.write_text(BLOCKED + FAIL)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("2 s3://bucket/key: the server failed 2 times"), done.stderr
