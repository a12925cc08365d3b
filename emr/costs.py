"""How long a run takes and what it costs: pure formulas of measured costs per brick and per stamp.

Times are those of stage 4c: chunk after chunk, a chunk's bricks shared out over the cores, the driver committing in
between. A brick is not divided, so a chunk lasts at least as long as its largest brick. Transfers from S3 are added to
a brick's time, not overlapped with it: a bound from above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from darkhaloscope.survey.coadds import brick_files
from emr.definitions import InstanceType, Prices

BRICK_DEG2 = 0.0625  # 0.25 deg by 0.25 deg
FILES_PER_BRICK = len(brick_files("grz"))
S3_GETS_PER_S = 5500.0  # of one prefix, as S3 documents it; it grows with use
UPLOAD_PART_BYTES = 50e6  # of s3fs's multipart uploads
GB, HOUR_S = 1e9, 3600.0


@dataclass(frozen=True)
class Costs:
    """What was measured on one core, and what is assumed of a cluster (the last five, each an input)."""

    per_brick_s: float
    per_stamp_s: float
    bytes_per_stamp: float
    bytes_per_brick: float
    start_up_s: float  # Spark, imports, compiled code
    cluster_start_s: float = 480.0  # until a cluster's nodes run; 0 for one that is there
    s3_bytes_per_s_core: float = 40e6  # of one core reading
    commit_s: float = 2.0  # of the driver, per chunk: manifest, quarantine, heartbeat
    task_s: float = 0.01  # of the driver, per task: planning, result
    skew: float = 3.0  # the largest brick of a chunk over the mean


@dataclass(frozen=True)
class Job:
    """What is to be done."""

    name: str
    bricks: int
    stamps: int
    bricks_per_chunk: int
    note: str = ""


@dataclass(frozen=True)
class Estimate:
    """What it takes."""

    cores: int
    wall_s: float
    core_s: float
    efficiency: float  # core seconds of work over those that are paid
    usd: float
    bytes_read: float
    bytes_written: float
    gets: int
    puts: int
    gets_per_s: float
    files: int
    storage_gb: float
    memory_gib: float
    limit: str  # what keeps it from being faster with more cores


def occupied_bricks(bricks: int, hosts: int) -> int:
    """Return how many of `bricks` hold at least one of `hosts` scattered at random: B (1 - exp(-N/B)).

    Real hosts cluster, so this is a bound from above.
    """
    return round(bricks * -math.expm1(-hosts / bricks))


def bricks_of_area(deg2: float) -> int:
    """Return the bricks of an area of sky."""
    return round(deg2 / BRICK_DEG2)


def brick_s(job: Job, costs: Costs) -> float:
    """Return the seconds that one core spends on a mean brick: transfer, opening, its stamps."""
    transfer = costs.bytes_per_brick / costs.s3_bytes_per_s_core
    return transfer + costs.per_brick_s + costs.per_stamp_s * job.stamps / job.bricks


def chunk_s(job: Job, costs: Costs, cores: int) -> float:
    """Return the seconds from one commit to the next.

    The work of a chunk over its tasks, but never less than its largest brick; then the driver's share.
    """
    bricks = min(job.bricks, job.bricks_per_chunk)
    tasks = min(cores, bricks)
    mean = brick_s(job, costs)
    return max(bricks * mean / tasks, mean * costs.skew) + costs.commit_s + tasks * costs.task_s


def chunks_of(job: Job) -> int:
    """Return the number of chunks."""
    return -(-job.bricks // job.bricks_per_chunk)


def wall_s(job: Job, costs: Costs, cores: int) -> float:
    """Return the seconds of a whole run, its start included."""
    return costs.cluster_start_s + costs.start_up_s + chunks_of(job) * chunk_s(job, costs, cores)


def requests_of(job: Job, costs: Costs, cores: int) -> tuple[int, int, int]:
    """Return (GET, PUT, files written): a GET a file of a brick, and the multipart PUTs of a part a task."""
    tasks = min(cores, job.bricks, job.bricks_per_chunk)
    files = chunks_of(job) * tasks
    part_bytes = job.stamps * costs.bytes_per_stamp / files
    uploads = math.ceil(part_bytes / UPLOAD_PART_BYTES) + (2 if part_bytes > UPLOAD_PART_BYTES else 0)
    return job.bricks * FILES_PER_BRICK, files * max(1, uploads) + 3 * chunks_of(job), files + chunks_of(job)


def limit_of(job: Job, costs: Costs, cores: int) -> str:
    """Say what a run of this many cores waits for most: what stops it from scaling linearly."""
    bricks = min(job.bricks, job.bricks_per_chunk)
    mean = brick_s(job, costs)
    seconds = {
        "cores": bricks * mean / cores,
        "bricks of a chunk fewer than cores": bricks * mean / min(cores, bricks) - bricks * mean / cores,
        "the largest brick of a chunk": max(0.0, mean * costs.skew - bricks * mean / min(cores, bricks)),
        "the driver's commits": costs.commit_s + min(cores, bricks) * costs.task_s,
        "start-up": (costs.cluster_start_s + costs.start_up_s) / chunks_of(job),
    }
    if gets_per_s(job, costs, cores) > S3_GETS_PER_S:
        return "S3 requests"
    return max(seconds, key=lambda name: seconds[name])


def gets_per_s(job: Job, costs: Costs, cores: int) -> float:
    """Return the mean rate of GET requests while chunks run."""
    return job.bricks * FILES_PER_BRICK / (chunks_of(job) * chunk_s(job, costs, cores))


def node_usd_h(node: InstanceType, prices: Prices, spot: bool) -> float:
    """Return what a node costs an hour, the service's charge included."""
    return node.ec2_usd_h * (prices.spot_fraction if spot else 1.0) + node.emr_usd_h


def estimate(
    job: Job, costs: Costs, node: InstanceType, nodes: int, prices: Prices, spot: bool = True
) -> Estimate:
    """Return time, cost, traffic and storage of a job on so many nodes.

    Cost: nodes by the hour, requests, and the output's storage for a month. Memory is that of all nodes.
    """
    cores = nodes * node.vcpus
    wall = wall_s(job, costs, cores)
    core_s = job.bricks * brick_s(job, costs)
    gets, puts, files = requests_of(job, costs, cores)
    written = job.stamps * costs.bytes_per_stamp
    usd = nodes * node_usd_h(node, prices, spot) * wall / HOUR_S
    usd += s3_usd(job, costs, cores, prices)
    return Estimate(
        cores=cores,
        wall_s=wall,
        core_s=core_s,
        efficiency=core_s / (cores * wall),
        usd=usd,
        bytes_read=job.bricks * costs.bytes_per_brick,
        bytes_written=written,
        gets=gets,
        puts=puts,
        gets_per_s=gets_per_s(job, costs, cores),
        files=files,
        storage_gb=(written + job.bricks * costs.bytes_per_brick) / GB,
        memory_gib=nodes * node.memory_gib,
        limit=limit_of(job, costs, cores),
    )


def s3_usd(job: Job, costs: Costs, cores: int, prices: Prices) -> float:
    """Return what S3 asks: the requests, and the output's storage for a month."""
    gets, puts, _ = requests_of(job, costs, cores)
    stored = job.stamps * costs.bytes_per_stamp / GB * prices.s3_usd_gb_month
    return gets / 1000 * prices.s3_get_usd_1000 + puts / 1000 * prices.s3_put_usd_1000 + stored


def serverless_usd(job: Job, costs: Costs, cores: int, gib_per_core: float, prices: Prices) -> float:
    """Return what the same work costs on as many cores of Serverless: vCPU and memory by the second, and S3."""
    seconds = wall_s(job, replace(costs, cluster_start_s=0.0), cores)
    per_hour = cores * (prices.serverless_usd_vcpu_h + gib_per_core * prices.serverless_usd_gb_h)
    return per_hour * seconds / HOUR_S + s3_usd(job, costs, cores, prices)


def measured(figures: Mapping[str, Any]) -> Costs:
    """Return the costs out of benchmarks/results/stamps.json; a repeated measurement counts with its median.

    Raises:
        KeyError: a figure is not there.
    """
    names = ("per_brick_s", "per_stamp_s", "bytes_per_stamp", "bytes_per_brick", "start_up_s")
    return Costs(**{name: figure(figures[name]) for name in names})


def figure(value: Any) -> float:
    """Return a measured number, or the median of a repeated measurement."""
    return float(value["median"] if isinstance(value, Mapping) else value)
