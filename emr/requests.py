"""The requests to AWS, as plain dicts: pure functions of definitions and of where things were uploaded.

What is sent is what `python -m emr.submit --dry-run` prints. Arguments are lists in JSON from end to end: nothing joins
or splits them, so `g,r,z` and values with spaces arrive as they were given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darkhaloscope.storage import join
from emr.definitions import Application, Cluster, Fleet, InstanceType, Site, instance_types
from emr.sizing import ExecutorSize, cluster_executors, executor_vcpus, serverless_executor

PREFIX = "darkhaloscope"
NODE_FOLDER = "/mnt/darkhaloscope"  # on a node's large disk; bootstrap/prepare_node.sh makes it
SERVERLESS_FOLDER = "/tmp"
PYTHON = "./environment/bin/python"
TAGS = {
    "project": PREFIX,
    # The managed policy AmazonEMRServicePolicy_v2 lets the service act on what carries this tag only.
    "for-use-with-amazon-emr-managed-policies": "true",
}


@dataclass(frozen=True)
class Uploaded:
    """URLs of what a job needs; each holds a checksum, so none can be older than the run."""

    archive: str
    script: str
    prepare_node: str


def digest(value: Any) -> str:
    """Return 10 hex digits of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def named(name: str, request: dict[str, Any]) -> str:
    """Return a name that tells a request from every other: what has it already exists and is reused."""
    return f"{PREFIX}-{name}-{digest(request)}"


def run_job_flow(
    cluster: Cluster, site: Site, known: Mapping[str, InstanceType], prepare_node: str, logs: str
) -> dict[str, Any]:
    """Return the RunJobFlow request of a cluster, which stays up for further steps until it has been idle."""
    fleets = [_primary(cluster), _fleet("CORE", cluster.core, cluster, known)]
    if cluster.task.on_demand_vcpus + cluster.task.spot_vcpus:
        fleets.append(_fleet("TASK", cluster.task, cluster, known))
    instances: dict[str, Any] = {
        "InstanceFleets": fleets,
        "KeepJobFlowAliveWhenNoSteps": True,
        "TerminationProtected": False,
    }
    if site.subnet:
        instances["Ec2SubnetIds"] = [site.subnet]
    request: dict[str, Any] = {
        "ReleaseLabel": cluster.release,
        "Applications": [{"Name": "Spark"}, {"Name": "Hadoop"}],
        "Instances": instances,
        "BootstrapActions": [
            {"Name": "folders", "ScriptBootstrapAction": {"Path": prepare_node, "Args": [NODE_FOLDER]}}
        ],
        "AutoTerminationPolicy": {"IdleTimeout": cluster.idle_timeout_s},
        "LogUri": logs,
        "ServiceRole": site.service_role,
        "JobFlowRole": site.instance_profile,
        "VisibleToAllUsers": True,
        "StepConcurrencyLevel": 1,
        "Tags": [{"Key": k, "Value": v} for k, v in TAGS.items()],
    }
    if site.kms_key:
        request["LogEncryptionKmsKeyId"] = site.kms_key
    return {"Name": named(cluster.name, request), **request}


def step(
    cluster: Cluster,
    known: Mapping[str, InstanceType],
    uploaded: Uploaded,
    stage: str,
    arguments: Sequence[str],
) -> dict[str, Any]:
    """Return one entry of the `Steps` of AddJobFlowSteps: spark-submit through command-runner.jar.

    A step of `Type=Spark` would prepend a spark-submit of its own to this one.
    """
    core, task = (instance_types(f.types, known) for f in (cluster.core, cluster.task))
    size = cluster_executors(cluster, core, task)
    conf = {
        "spark.archives": f"{uploaded.archive}#environment",
        "spark.driver.memory": f"{cluster.driver_memory_mib}m",
        "spark.driver.memoryOverhead": f"{cluster.driver_overhead_mib}m",
        **_executor_conf(size),
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.maxExecutors": str(executor_vcpus(cluster) // size.cores),
        "spark.task.maxFailures": "8",  # a spot node that is taken away counts against its tasks
        # A second attempt of the driver would find the first one's heartbeat and stop; submit the stage again instead.
        "spark.yarn.maxAppAttempts": "1",
        **_environment("spark.yarn.appMasterEnv", NODE_FOLDER),
    }
    submit = ["spark-submit", "--master", "yarn", "--deploy-mode", "cluster"]
    submit += [part for k, v in conf.items() for part in ("--conf", f"{k}={v}")]
    jar = {"Jar": "command-runner.jar", "Args": [*submit, uploaded.script, *arguments]}
    return {"Name": named(f"stage-{stage}", jar), "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar}


def create_application(application: Application, site: Site) -> dict[str, Any]:
    """Return the CreateApplication request of a Serverless application, all but its client token."""
    workers = application.max_executors
    request: dict[str, Any] = {
        "releaseLabel": application.release,
        "type": "SPARK",
        "architecture": "X86_64",
        "maximumCapacity": {
            "cpu": f"{workers * application.executor_cores + application.driver_cores} vCPU",
            "memory": f"{workers * application.executor_memory_gib + application.driver_memory_gib} GB",
        },
        "autoStartConfiguration": {"enabled": True},
        "autoStopConfiguration": {"enabled": True, "idleTimeoutMinutes": application.idle_timeout_minutes},
        "tags": TAGS,
    }
    if site.subnet:
        request["networkConfiguration"] = {"subnetIds": [site.subnet],
                                           "securityGroupIds": list(site.security_groups)}  # fmt: skip
    return {"name": named(application.name, request), **request}


def start_job_run(
    application: Application, site: Site, uploaded: Uploaded, stage: str, arguments: Sequence[str], logs: str
) -> dict[str, Any]:
    """Return the StartJobRun request, all but the application's id and the client token.

    Spark's settings go as properties, not as `sparkSubmitParameters`, which is one string that the service splits.
    """
    size = serverless_executor(application)
    conf = {
        "spark.archives": f"{uploaded.archive}#environment",
        "spark.driver.cores": str(application.driver_cores),
        "spark.driver.memory": f"{application.driver_memory_gib * 1024 - 1024}m",
        "spark.driver.memoryOverhead": "1024m",
        **_executor_conf(size),
        "spark.emr-serverless.executor.disk": f"{application.executor_disk_gib}g",
        "spark.dynamicAllocation.maxExecutors": str(application.max_executors),
        **_environment("spark.emr-serverless.driverEnv", SERVERLESS_FOLDER),
    }
    monitoring: dict[str, Any] = {"logUri": logs}
    if site.kms_key:
        monitoring["encryptionKeyArn"] = site.kms_key
    driver = {"sparkSubmit": {"entryPoint": uploaded.script, "entryPointArguments": list(arguments)}}
    request = {
        "executionRoleArn": site.execution_role,
        "jobDriver": driver,
        "configurationOverrides": {
            "applicationConfiguration": [{"classification": "spark-defaults", "properties": conf}],
            "monitoringConfiguration": {"s3MonitoringConfiguration": monitoring},
        },
        "tags": TAGS,
    }
    return {"name": named(f"stage-{stage}", request), **request}


def logs_of_step(logs: str, cluster_id: str, step_id: str) -> str:
    """Say where the logs of a step are; they appear some minutes after what they tell."""
    own = join(logs, cluster_id, "steps", step_id)
    return f"{own}/ (spark-submit); {join(logs, cluster_id, 'containers')}/ (driver and executors)"


def logs_of_job_run(logs: str, application_id: str, run_id: str) -> str:
    """Say where the logs of a Serverless job run are."""
    return join(logs, "applications", application_id, "jobs", run_id) + "/"


def _executor_conf(size: ExecutorSize) -> dict[str, str]:
    return {
        "spark.executor.cores": str(size.cores),
        "spark.executor.memory": f"{size.heap_mib}m",
        "spark.executor.memoryOverhead": f"{size.overhead_mib}m",
    }


def _environment(driver: str, folder: str) -> dict[str, str]:
    """Return the settings that give the driver and the executors the archive's Python and folders to write to."""
    shared = {"PYSPARK_PYTHON": PYTHON, "NUMBA_CACHE_DIR": f"{folder}/numba", "OMP_NUM_THREADS": "1"}
    if folder == NODE_FOLDER:
        shared["TMPDIR"] = f"{folder}/scratch"
    of_driver = {"PYSPARK_DRIVER_PYTHON": PYTHON, **shared}
    return {f"{driver}.{k}": v for k, v in of_driver.items()} | {
        f"spark.executorEnv.{k}": v for k, v in shared.items()
    }


def _primary(cluster: Cluster) -> dict[str, Any]:
    kind = {"InstanceType": cluster.primary_type, "WeightedCapacity": 1}
    return {"Name": "primary", "InstanceFleetType": "MASTER", "TargetOnDemandCapacity": 1,
            "InstanceTypeConfigs": [kind]}  # fmt: skip


def _fleet(role: str, fleet: Fleet, cluster: Cluster, known: Mapping[str, InstanceType]) -> dict[str, Any]:
    disk = {
        "VolumeSpecification": {"VolumeType": "gp3", "SizeInGB": fleet.volume_gib},
        "VolumesPerInstance": 1,
    }
    kinds = [
        {
            "InstanceType": t.name,
            "WeightedCapacity": t.vcpus,
            "EbsConfiguration": {"EbsBlockDeviceConfigs": [disk]},
        }
        for t in instance_types(fleet.types, known)
    ]
    request: dict[str, Any] = {
        "Name": role.lower(),
        "InstanceFleetType": role,
        "TargetOnDemandCapacity": fleet.on_demand_vcpus,
        "TargetSpotCapacity": fleet.spot_vcpus,
        "InstanceTypeConfigs": kinds,
    }
    if fleet.spot_vcpus:
        wait = {
            "TimeoutDurationMinutes": cluster.spot_wait_minutes,
            "TimeoutAction": "SWITCH_TO_ON_DEMAND",
            "AllocationStrategy": "price-capacity-optimized",
        }
        request["LaunchSpecifications"] = {"SpotSpecification": wait}
    return request
