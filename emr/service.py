"""Finding or making a cluster or application, and finding or submitting a job on it: each at most once."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from emr.aws import SubmitError, call, client, ensure, say
from emr.follow import Job, job_run, step_job

ALIVE = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]
UNFINISHED_STEPS = ["PENDING", "RUNNING"]
USABLE_APPLICATIONS = ["CREATING", "CREATED", "STARTING", "STARTED", "STOPPING", "STOPPED"]
UNFINISHED_RUNS = ["SUBMITTED", "PENDING", "SCHEDULED", "QUEUED", "RUNNING"]
Pause = Callable[[float], None]


def on_ec2(cluster: dict[str, Any], step: dict[str, Any], region: str, logs: str, pause: Pause) -> Job:
    """Return the job of a step on the cluster of this request, making either only where it is not there.

    Raises:
        SubmitError: AWS refuses.
    """
    emr = client("emr", region, creates=True)

    def find_cluster() -> str | None:
        return _first(emr, "list_clusters", "Clusters", "Id", cluster["Name"], ClusterStates=ALIVE)

    cluster_id, made = ensure(
        "cluster", find_cluster, lambda: emr.run_job_flow(**cluster)["JobFlowId"], pause
    )
    say(f"submit: cluster {cluster_id} {'is starting' if made else 'is there'} ({cluster['Name']})")

    def find_step() -> str | None:
        found = {"ClusterId": cluster_id, "StepStates": UNFINISHED_STEPS}
        return _first(emr, "list_steps", "Steps", "Id", step["Name"], **found)

    def add() -> str:
        return emr.add_job_flow_steps(JobFlowId=cluster_id, Steps=[step])["StepIds"][0]

    step_id, made = ensure("step", find_step, add, pause)
    say(f"submit: step {step_id} {'submitted' if made else 'was submitted before'} ({step['Name']})")
    return step_job(client("emr", region), cluster_id, step_id, logs)


def serverless(application: dict[str, Any], run: dict[str, Any], region: str, logs: str, pause: Pause) -> Job:
    """Return the job of a run on the application of this request, making either only where it is not there.

    Client tokens guard the moment between looking and making: AWS answers a repeated token with what it made.

    Raises:
        SubmitError: AWS refuses.
    """
    emr = client("emr-serverless", region, creates=True)
    token = str(uuid.uuid4())

    def find_application() -> str | None:
        return _first(
            emr, "list_applications", "applications", "id", application["name"], states=USABLE_APPLICATIONS
        )

    def create() -> str:
        return emr.create_application(clientToken=token, **application)["applicationId"]

    application_id, made = ensure("application", find_application, create, pause)
    say(f"submit: application {application_id} {'created' if made else 'is there'} ({application['name']})")

    def find_run() -> str | None:
        try:
            found = {"applicationId": application_id, "states": UNFINISHED_RUNS}
            return _first(emr, "list_job_runs", "jobRuns", "id", run["name"], **found)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return None  # an application that has run nothing yet
            raise

    def start() -> str:
        return emr.start_job_run(applicationId=application_id, clientToken=token, **run)["jobRunId"]

    run_id, made = ensure("job run", find_run, start, pause)
    say(f"submit: job run {run_id} {'submitted' if made else 'was submitted before'} ({run['name']})")
    return job_run(client("emr-serverless", region), application_id, run_id, logs)


def check_subnet(ec2: Any, subnet: str, region: str) -> None:
    """Refuse a subnet that is not in the region the cluster is asked for.

    Raises:
        SubmitError: it is not there, or its availability zone is of another region.
    """
    what = f"subnet {subnet} of region {region} (emr/site.toml)"
    found = call(what, lambda: ec2.describe_subnets(SubnetIds=[subnet]))["Subnets"]
    zone = found[0]["AvailabilityZone"]
    if not zone.startswith(region):
        raise SubmitError(f"{what}: it is in {zone}; give a subnet of {region}")


def _first(service: Any, call_name: str, items: str, key: str, name: str, **filters: Any) -> str | None:
    """Return the id of the first item of that name among all pages of a list call."""
    for page in service.get_paginator(call_name).paginate(**filters):
        for item in page[items]:
            if item["name" if "name" in item else "Name"] == name:
                return item[key]
    return None
