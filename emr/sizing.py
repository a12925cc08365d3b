"""How large an executor may be: from the node's memory, with room for Python, and never more than YARN offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from darkhaloscope.config import ConfigError
from emr.definitions import Application, Cluster, InstanceType

PYTHON_MIB_PER_CORE = 1536  # a worker with a brick's planes, numba and Arrow batches
HEAP_MIB_PER_CORE = 1024  # the JVM only plans and moves results; what is left over goes to Python
MIN_HEAP_MIB = 1024
YARN_STEP_MIB = 32  # containers are rounded up to a multiple of it
SERVERLESS_MEMORY_GIB = {
    1: (2, 8),
    2: (4, 16),
    4: (8, 30),
    8: (16, 60),
    16: (32, 120),
}  # vCPUs -> least and most


@dataclass(frozen=True)
class ExecutorSize:
    """An executor: cores, JVM heap, and what is outside the heap (Python)."""

    cores: int
    heap_mib: int
    overhead_mib: int


def yarn_memory_mib(memory_gib: float) -> int:
    """Return what EMR leaves to YARN on a node: all but a quarter of the memory, or all but 8 GiB if that is more.

    This reproduces `yarn.nodemanager.resource.memory-mb` of the EMR Release Guide's task configuration tables:
    12,288 of 16 GiB, 24,576 of 32, 57,344 of 64, 253,952 of 256.
    """
    memory = memory_gib * 1024
    return int(memory - min(memory / 4, 8192))


def executor_size(nodes: Sequence[InstanceType], cores: int) -> ExecutorSize:
    """Return the executor that fits every type of the fleets, as many on a node as its vCPUs allow.

    Raises:
        ConfigError: a type has fewer vCPUs than an executor, or too little memory for Python and a heap.
    """
    containers = []
    for node in nodes:
        if node.vcpus < cores:
            raise ConfigError(
                f"{node.name} has {node.vcpus} vCPUs, an executor {cores}; give fewer executor_cores"
            )
        share = yarn_memory_mib(node.memory_gib) // (node.vcpus // cores)
        containers.append(share - share % YARN_STEP_MIB)
    container = min(containers)
    least = PYTHON_MIB_PER_CORE * cores
    if container < least + MIN_HEAP_MIB:
        tightest = nodes[containers.index(container)]
        raise ConfigError(
            f"{tightest.name}: YARN offers an executor of {cores} cores {container} MiB; Python needs {least} and the "
            f"JVM {MIN_HEAP_MIB}; take a type with more memory a vCPU"
        )
    heap = min(container - least, HEAP_MIB_PER_CORE * cores)
    return ExecutorSize(cores, heap, container - heap)


def cluster_executors(
    cluster: Cluster, core: Sequence[InstanceType], task: Sequence[InstanceType]
) -> ExecutorSize:
    """Return a cluster's executor size, after checking that the driver fits a core node too.

    Raises:
        ConfigError: as `executor_size`, or a driver larger than what YARN offers on a core node.
    """
    driver = cluster.driver_memory_mib + cluster.driver_overhead_mib
    for node in core:
        if driver > yarn_memory_mib(node.memory_gib):
            raise ConfigError(
                f"{node.name}: YARN offers {yarn_memory_mib(node.memory_gib)} MiB, the driver asks {driver}"
            )
    return executor_size([*core, *task], cluster.executor_cores)


def executor_vcpus(cluster: Cluster) -> int:
    """Return the vCPUs that executors may use: all but the cores of one executor, whose place the driver takes."""
    total = sum(f.on_demand_vcpus + f.spot_vcpus for f in (cluster.core, cluster.task))
    return max(cluster.executor_cores, total - cluster.executor_cores)


def serverless_executor(application: Application) -> ExecutorSize:
    """Return the executor of a Serverless application.

    Raises:
        ConfigError: a size that the service does not offer, or too little memory for Python and a heap.
    """
    cores, memory = application.executor_cores, application.executor_memory_gib
    for name, vcpus, gib in (
        ("executor", cores, memory), ("driver", application.driver_cores, application.driver_memory_gib),
    ):  # fmt: skip
        least, most = SERVERLESS_MEMORY_GIB.get(vcpus, (0, 0))
        if not least <= gib <= most:
            raise ConfigError(
                f"{application.name}: {name} of {vcpus} vCPUs and {gib} GiB; Serverless offers "
                f"vCPUs: GiB = {SERVERLESS_MEMORY_GIB}"
            )
    python, total = PYTHON_MIB_PER_CORE * cores, memory * 1024
    if total < python + MIN_HEAP_MIB:
        raise ConfigError(
            f"{application.name}: {memory} GiB for {cores} cores; Python alone needs {python} MiB"
        )
    heap = min(total - python, HEAP_MIB_PER_CORE * cores)
    return ExecutorSize(cores, heap, total - heap)
