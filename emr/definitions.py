"""What a cluster, a Serverless application and an account's site are: typed, frozen config read from TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from darkhaloscope.config import ConfigError, build

HERE = Path(__file__).parent
T = TypeVar("T")


@dataclass(frozen=True)
class InstanceType:
    """A kind of node, and what an hour of it costs."""

    name: str
    vcpus: int
    memory_gib: float
    ec2_usd_h: float  # on demand
    emr_usd_h: float  # the service's own charge, spot nodes too


@dataclass(frozen=True)
class Prices:
    """What things cost in one region at one date; an input, see emr/prices.toml."""

    as_of: str
    region: str
    spot_fraction: float  # of the on-demand price
    s3_put_usd_1000: float
    s3_get_usd_1000: float
    s3_usd_gb_month: float
    serverless_usd_vcpu_h: float
    serverless_usd_gb_h: float


@dataclass(frozen=True)
class Fleet:
    """Nodes of one role: the types that may fill it, and how many vCPUs of each market."""

    types: tuple[str, ...] = ()
    on_demand_vcpus: int = 0
    spot_vcpus: int = 0
    volume_gib: int = 128  # scratch of a node: bricks are copied to it one at a time


@dataclass(frozen=True)
class Cluster:
    """A cluster on EC2. `core` nodes hold the driver and are on demand; `task` nodes may be spot."""

    name: str
    core: Fleet
    release: str = "emr-7.13.0"
    primary_type: str = "m5.xlarge"
    task: Fleet = field(default_factory=Fleet)
    executor_cores: int = 4
    driver_memory_mib: int = 4096
    driver_overhead_mib: int = 1024
    idle_timeout_s: int = 900  # then the cluster ends itself
    spot_wait_minutes: int = 10  # then on-demand nodes are taken instead


@dataclass(frozen=True)
class Application:
    """A Serverless application, and the workers that a job run asks of it."""

    name: str
    release: str = "emr-7.13.0"
    executor_cores: int = 4
    executor_memory_gib: int = 14  # heap and Python together
    executor_disk_gib: int = 50
    max_executors: int = 64
    driver_cores: int = 2
    driver_memory_gib: int = 6
    idle_timeout_minutes: int = 15


@dataclass(frozen=True)
class Site:
    """What is different in every account: emr/site.toml, which stays on your machine."""

    region: str
    code_s3: str  # folder for packages, configs and logs, s3://bucket/prefix
    subnet: str = ""  # of the cluster; empty: the service takes one of the default VPC
    security_groups: tuple[str, ...] = ()  # of Serverless workers in that subnet
    service_role: str = "EMR_DefaultRole"
    instance_profile: str = "EMR_EC2_DefaultRole"
    execution_role: str = ""  # ARN of the role that Serverless job runs have
    kms_key: str = ""  # ARN; encrypts uploads and logs; empty: the bucket's own default


def read(cls: type[T], path: Path) -> T:
    """Read one TOML file into a dataclass.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, a value of the wrong type.
    """
    return build(cls, raw_toml(path), str(path))


def named(cls: type[T], folder: str, name: str) -> T:
    """Read emr/<folder>/<name>.toml, or the file of that path.

    Raises:
        ConfigError: neither is there; the names there are are listed.
    """
    path = Path(name) if name.endswith(".toml") else HERE / folder / f"{name}.toml"
    if not path.exists():
        known = sorted(p.stem for p in (HERE / folder).glob("*.toml"))
        raise ConfigError(f"{name}: no such definition; known in emr/{folder}: {known}; or give a .toml file")
    return read(cls, path)


def read_prices(path: Path = HERE / "prices.toml") -> tuple[Prices, dict[str, InstanceType]]:
    """Read prices and instance types.

    Raises:
        ConfigError: as `read`.
    """
    raw = raw_toml(path)
    types = {
        n: build(InstanceType, {"name": n, **v}, f"{path} [{n}]") for n, v in raw.pop("instances", {}).items()
    }
    return build(Prices, raw, str(path)), types


def instance_types(names: tuple[str, ...], known: Mapping[str, InstanceType]) -> list[InstanceType]:
    """Return the types of these names.

    Raises:
        ConfigError: a type whose memory and vCPUs are not in emr/prices.toml.
    """
    if unknown := [n for n in names if n not in known]:
        raise ConfigError(
            f"instance types {unknown} are not in emr/prices.toml; add them; known: {sorted(known)}"
        )
    return [known[n] for n in names]


def check_site(site: Site) -> None:
    """Refuse a site whose parts cannot belong together.

    Raises:
        ConfigError: no region, no S3 folder, a subnet or ARN that is none, an ARN of another region.
    """
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", site.region):
        raise ConfigError(f"site: region = {site.region!r}; expected one like us-east-1")
    if not site.code_s3.startswith("s3://"):
        raise ConfigError(f"site: code_s3 = {site.code_s3!r}; expected s3://bucket/prefix")
    if site.subnet and not re.fullmatch(r"subnet-[0-9a-f]+", site.subnet):
        raise ConfigError(f"site: subnet = {site.subnet!r}; expected subnet-... of region {site.region}")
    if site.kms_key and f":{site.region}:" not in site.kms_key:
        raise ConfigError(
            f"site: kms_key is not an ARN of region {site.region}; a key is of the region of its bucket"
        )
    if site.execution_role and not re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:role/.+", site.execution_role):
        raise ConfigError("site: execution_role is no ARN of a role (arn:aws:iam::<account>:role/<name>)")


def raw_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file as nested dicts.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
