"""Send a stage to EMR and follow it: python -m emr.submit --stage 4c --experiment TOML --output-s3 s3://...

1. Read the site (emr/site.toml), the cluster or application, the experiment and the package (`make emr-package`).
2. Upload what is not on S3 yet: archive, script, files that arguments name, under names that hold their checksums.
3. Reuse the cluster or application of this definition, or create it; reuse the same unfinished step, or submit it.
4. Follow it: state, time, committed chunks. Exit status 0 when the stage is done, 1 with the reason when it is not.

Further arguments go to the stage as they are (`--partitions 512`, `--bands g,r,z`). Running the same command again
after an interruption follows the job that runs. --dry-run prints the requests and calls nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

from darkhaloscope.config import ConfigError
from darkhaloscope.errors import Explained
from darkhaloscope.storage import join
from darkhaloscope.writing import replace_file
from emr import requests, service
from emr.aws import SubmitError, client, say
from emr.commands import STAGES, command_of
from emr.definitions import Application, Cluster, Site, check_site, named, read, read_prices
from emr.follow import follow
from emr.sizing import executor_vcpus
from emr.upload import Package, Upload, check_bucket, plan_uploads, read_package, send

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Plan:
    """Everything that is going to be sent, before anything is."""

    site: Site
    package: Package
    uploads: list[Upload]
    output: str  # of the stage's table
    logs: str
    place: dict[str, Any]  # request for a cluster or an application
    job: dict[str, Any]  # request for a step or a job run
    serverless: bool

    def as_json(self) -> dict[str, Any]:
        """Return the requests by the name of their call."""
        calls = ("CreateApplication", "StartJobRun") if self.serverless else ("RunJobFlow", "AddJobFlowSteps")
        job = self.job if self.serverless else {"Steps": [self.job]}
        return {"PutObject": [u.url for u in self.uploads], calls[0]: self.place, calls[1]: job}


def make_plan(args: argparse.Namespace, stage_arguments: list[str]) -> Plan:
    """Return what a command line asks for.

    Raises:
        ConfigError: a definition, site or experiment that cannot be used.
        SubmitError: no package, or stage arguments that the stage would refuse.
    """
    if not args.site.exists():
        raise ConfigError(
            f"{args.site}: no such file; copy emr/site.example.toml to it and fill it in (docs/emr.md)"
        )
    site = read(Site, args.site)
    check_site(site)
    serverless = args.serverless is not None
    where: Any = (
        named(Application, "serverless", args.serverless)
        if serverless
        else named(Cluster, "clusters", args.cluster)
    )
    if serverless and not site.execution_role:
        raise ConfigError(
            f"{args.site}: --serverless needs execution_role, the role that job runs have (docs/emr.md)"
        )
    cores = where.max_executors * where.executor_cores if serverless else executor_vcpus(where)
    command = command_of(args, cores, stage_arguments)
    package = read_package(args.package, where.release)
    logs = join(site.code_s3, "logs")
    uploads, uploaded, urls = plan_uploads(
        package, f"spark_jobs/{command.script}", command.files, site.code_s3
    )
    arguments = command.with_urls(urls)
    check_stage_arguments(command.script, arguments)
    if serverless:
        place_request = requests.create_application(where, site)
        job = requests.start_job_run(where, site, uploaded, args.stage, arguments, logs)
    else:
        types = read_prices()[1]
        place_request = requests.run_job_flow(where, site, types, uploaded.prepare_node, logs)
        job = requests.step(where, types, uploaded, args.stage, arguments)
    return Plan(site, package, uploads, command.output, logs, place_request, job, serverless)


def check_stage_arguments(script: str, arguments: list[str]) -> None:
    """Let the stage's own parser read the arguments here, before a cluster starts to find a typo.

    Raises:
        SubmitError: with what the parser says.
    """
    # By name: this package stands beside the stages, and this is all it needs of their code.
    stage = importlib.import_module(f"spark_jobs.{script.removesuffix('.py')}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            stage.parser().parse_args(arguments)
    except SystemExit as end:
        if end.code:
            raise SubmitError(
                f"the stage refuses its arguments: {said.getvalue().splitlines()[-1]}"
            ) from None


def submit(plan: Plan, detach: bool = False) -> None:
    """Upload, find or create, submit, record, follow.

    Raises:
        SubmitError: any of it cannot go on; nothing is left made twice.
    """
    region = plan.site.region
    for url in (plan.output, plan.site.code_s3):
        if warning := check_bucket(client("s3", region), url, region):
            say(f"submit: {warning}")
    if plan.site.subnet:
        service.check_subnet(client("ec2", region), plan.site.subnet, region)
    sent = send(client("s3", region), plan.uploads, plan.site.kms_key)
    say(f"submit: uploaded {len(sent)} of {len(plan.uploads)} files, the others were there")
    backend = service.serverless if plan.serverless else service.on_ec2
    job = backend(plan.place, plan.job, region, plan.logs, sleep)
    record = {"requests": plan.as_json(), "package": plan.package.manifest, "job": job.what}
    name = plan.job["name" if plan.serverless else "Name"]
    replace_file(join(plan.output, "_submissions", f"{name}.json"), json.dumps(record, indent=1).encode())
    say(f"submit: {job.what}\n  output: {plan.output}\n  logs: {job.logs}")
    if not detach:
        follow(job, plan.output, sleep)
        say(f"submit: done; table at {plan.output}")


def parser() -> argparse.ArgumentParser:
    """Return the command line; unknown arguments belong to the stage."""
    made = argparse.ArgumentParser(
        "python -m emr.submit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--stage", required=True, choices=STAGES, help="which stage to run")
    made.add_argument(
        "--experiment", type=Path, metavar="TOML", help="experiment file (a search has that of its model)"
    )
    made.add_argument("--experiment-id", help="name of the output folder below the variant")
    made.add_argument(
        "--output-s3",
        required=True,
        metavar="URL",
        help="root of all tables (of a search: its --out), s3://…",
    )
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "--cluster", default="standard", metavar="NAME", help="emr/clusters/NAME.toml, or a .toml file"
    )
    where.add_argument(
        "--serverless",
        nargs="?",
        const="standard",
        metavar="NAME",
        help="run on EMR Serverless instead of EC2",
    )
    made.add_argument(
        "--site", type=Path, default=REPOSITORY / "emr" / "site.toml", help="what your account has"
    )
    made.add_argument(
        "--package", type=Path, default=REPOSITORY / "dist" / "emr", help="what make emr-package built"
    )
    made.add_argument("--dry-run", action="store_true", help="print the requests; call nothing")
    made.add_argument("--detach", action="store_true", help="do not wait for the end")
    return made


def main(argv: list[str] | None = None) -> int:
    """Submit a stage; return the exit status."""
    args, stage_arguments = parser().parse_known_args(argv)
    try:
        plan = make_plan(args, stage_arguments)
        if args.dry_run:
            print(json.dumps(plan.as_json(), indent=1))
        else:
            submit(plan, args.detach)
    except Explained as error:
        print(f"submit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "submit: stopped following; the job goes on; the same command follows it again", file=sys.stderr
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
