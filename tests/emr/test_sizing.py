"""Executors fit their nodes, and definitions are what they say."""

import pytest

from darkhaloscope.config import ConfigError
from emr.definitions import (
    HERE,
    Application,
    Cluster,
    Fleet,
    InstanceType,
    Site,
    check_site,
    instance_types,
    named,
    read_prices,
)
from emr.sizing import (
    PYTHON_MIB_PER_CORE,
    ExecutorSize,
    cluster_executors,
    executor_size,
    executor_vcpus,
    serverless_executor,
    yarn_memory_mib,
)


def container_mib(size: ExecutorSize) -> int:
    """What an executor asks of YARN."""
    return size.heap_mib + size.overhead_mib


def executors_on(node: InstanceType, size: ExecutorSize) -> int:
    """How many executors a node holds: YARN counts memory, and cores are not promised twice."""
    return min(node.vcpus // size.cores, yarn_memory_mib(node.memory_gib) // container_mib(size))


TYPES = read_prices()[1]


@pytest.mark.parametrize(
    ("gib", "mib"), [(8, 6144), (15, 11520), (16, 12288), (30.5, 23424), (32, 24576), (61, 54272), (64, 57344),
                     (160, 155648), (256, 253952)],
)  # fmt: skip
def test_yarn_gets_what_the_release_guide_says(gib, mib):
    assert yarn_memory_mib(gib) == mib


@pytest.mark.parametrize("name", sorted(TYPES))
@pytest.mark.parametrize("cores", [1, 2, 4])
def test_executors_never_ask_for_more_than_yarn_offers_and_leave_python_its_share(name, cores):
    node = TYPES[name]
    if node.memory_gib / node.vcpus < 4:
        with pytest.raises(ConfigError, match="take a type with more memory a vCPU"):
            executor_size([node], cores)
        return
    size = executor_size([node], cores)
    on_node = node.vcpus // cores
    assert on_node * container_mib(size) <= yarn_memory_mib(node.memory_gib)
    assert executors_on(node, size) == on_node
    assert size.overhead_mib >= PYTHON_MIB_PER_CORE * cores and size.heap_mib >= 1024


def test_one_size_fits_every_type_of_the_fleets():
    nodes = [TYPES["r5.4xlarge"], TYPES["m5.xlarge"]]
    size = executor_size(nodes, 4)
    assert size == executor_size([TYPES["m5.xlarge"]], 4)
    assert all(executors_on(n, size) * container_mib(size) <= yarn_memory_mib(n.memory_gib) for n in nodes)


def test_an_executor_larger_than_a_node_or_a_driver_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"m5\.xlarge has 4 vCPUs, an executor 8"):
        executor_size([TYPES["m5.xlarge"]], 8)
    core = Fleet(("m5.xlarge",), on_demand_vcpus=4)
    large = Cluster("x", core, driver_memory_mib=16000)
    with pytest.raises(ConfigError, match="YARN offers 12288 MiB, the driver asks 17024"):
        cluster_executors(large, [TYPES["m5.xlarge"]], [])


@pytest.mark.parametrize("path", sorted((HERE / "clusters").glob("*.toml")), ids=lambda p: p.stem)
def test_every_cluster_of_the_repository_can_be_asked_for(path):
    cluster = named(Cluster, "clusters", path.stem)
    assert cluster.name == path.stem
    core, task = (instance_types(f.types, TYPES) for f in (cluster.core, cluster.task))
    size = cluster_executors(cluster, core, task)
    assert executor_vcpus(cluster) % size.cores == 0
    assert 60 <= cluster.idle_timeout_s <= 7 * 86400


def test_serverless_workers_are_of_a_size_that_is_offered():
    size = serverless_executor(named(Application, "serverless", "standard"))
    assert container_mib(size) == 14 * 1024 and size.overhead_mib >= 4 * PYTHON_MIB_PER_CORE
    with pytest.raises(ConfigError, match="executor of 4 vCPUs and 40 GiB"):
        serverless_executor(Application("x", executor_memory_gib=40))
    with pytest.raises(ConfigError, match="executor of 3 vCPUs"):
        serverless_executor(Application("x", executor_cores=3))
    with pytest.raises(ConfigError, match="Python alone needs 1536"):
        serverless_executor(Application("x", executor_cores=1, executor_memory_gib=2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"region": "useast"}, "expected one like us-east-1"),
        ({"subnet": "vpc-12"}, "expected subnet-"),
        ({"code_s3": "/tmp"}, "expected s3://bucket/prefix"),
        ({"kms_key": "arn:aws:kms:eu-west-1:111122223333:key/x"}, "not an ARN of region us-east-1"),
        ({"execution_role": "stages"}, "no ARN of a role"),
    ],
)
def test_a_site_whose_parts_do_not_belong_together_is_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        check_site(Site(**{"region": "us-east-1", "code_s3": "s3://b/emr", **change}))


def test_an_instance_type_without_a_price_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"\['x9.huge'\] are not in emr/prices.toml"):
        instance_types(("x9.huge",), TYPES)
    assert isinstance(TYPES["m5.xlarge"], InstanceType)


def test_the_example_site_has_only_keys_that_are_read():
    text = (HERE / "site.example.toml").read_text()
    keys = {line.lstrip("# ").split(" =")[0] for line in text.splitlines() if " = " in line}
    assert keys == set(Site.__dataclass_fields__)
