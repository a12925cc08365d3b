"""What a stage is told on a cluster: its own arguments, the files that travel with it, and where its table will be."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from darkhaloscope.config import ConfigError
from darkhaloscope.experiment import Experiment, load
from darkhaloscope.stage import place
from darkhaloscope.storage import is_local, join

SEARCH = "search"
STAGES = {"3": ("phase3_pipeline.py", "phase3"), SEARCH: ("search_pipeline.py", "scored")} | {
    s: ("phase4_pipeline.py", "pack" if s == "pack" else f"phase{s}")
    for s in ("4a", "4b", "4c", "4d", "pack")
}
"""Stage -> its script and its table, below the output's root."""

FILE_FLAGS = ("--experiment", "--model", "--reference", "--known", "--positions", "--bricks")


@dataclass(frozen=True)
class Command:
    """A stage's script, its arguments with files by their paths here, and the URL of its table."""

    script: str
    arguments: list[str]
    output: str

    @property
    def files(self) -> list[Path]:
        """Files of this machine among the arguments.

        Raises:
            ConfigError: a flag names one that is not there; a brick's name is no file.
        """
        found = []
        for flag, name in self._named():
            if name and Path(name).is_file():
                found.append(Path(name))
            elif name and is_local(name) and flag != "--bricks":
                raise ConfigError(f"{flag} {name}: no such file")
        return list(dict.fromkeys(found))

    def with_urls(self, urls: Mapping[Path, str]) -> list[str]:
        """Return the arguments with URLs in place of files."""
        return [
            argument.removesuffix(name) + urls.get(Path(name), name) if name else argument
            for argument, (_, name) in zip(self.arguments, self._named(), strict=True)
        ]

    def _named(self) -> list[tuple[str, str]]:
        """Return of each argument a flag of `FILE_FLAGS` and the file that it names; of others "" and ""."""
        found = []
        for before, argument in zip(["", *self.arguments], self.arguments, strict=False):
            flag, _, value = argument.partition("=")
            named = (before, argument) if before in FILE_FLAGS else (flag, value)
            found.append(named if named[0] in FILE_FLAGS else ("", ""))
        return found


def command_of(args: argparse.Namespace, cores: int, more: Sequence[str]) -> Command:
    """Return what a stage is told: what submit knows, one Spark task a core, and what was given beside.

    Args:
        args: of `emr.submit`.
        cores: of all executors.
        more: further arguments of the stage.

    Raises:
        ConfigError: an experiment that cannot be used or is missing, or data that a cluster cannot reach.
    """
    if is_local(args.output_s3):
        raise ConfigError(f"--output-s3 {args.output_s3}: a cluster writes to s3://, not to this machine")
    script, table = STAGES[args.stage]
    own, output = _of_search(args) if args.stage == SEARCH else _of_experiment(args, table, cores, more)
    if not _given("--partitions", more):
        own += ["--partitions", str(cores)]
    return Command(script, [*own, *more], output)


def _of_search(args: argparse.Namespace) -> tuple[list[str], str]:
    if args.experiment or args.experiment_id:
        raise ConfigError("--stage search: its experiment is in the model; leave --experiment and its id out")
    return ["--out", args.output_s3], join(args.output_s3, STAGES[SEARCH][1])


def _of_experiment(
    args: argparse.Namespace, table: str, cores: int, more: Sequence[str]
) -> tuple[list[str], str]:
    if args.experiment is None:
        raise ConfigError(f"--stage {args.stage}: give its experiment file, --experiment TOML")
    experiment = load(args.experiment, {"experiment_id": args.experiment_id} if args.experiment_id else {})
    if is_local(experiment.survey.source) and not _given("--survey-source", more):
        raise ConfigError(
            f"{args.experiment}: survey.source = {experiment.survey.source!r} is on this machine; a cluster reads "
            "https:// or s3://; give --survey-source"
        )
    _warn_of_idle_cores(args.stage, experiment, cores)
    own = [] if args.stage == "3" else ["--stage", args.stage]
    own += ["--experiment", str(args.experiment), "--output-s3", args.output_s3]
    own += ["--experiment-id", args.experiment_id] if args.experiment_id else []
    return own, place(args.output_s3, table, experiment)


def _given(flag: str, arguments: Sequence[str]) -> bool:
    return any(a == flag or a.startswith(flag + "=") for a in arguments)


def _warn_of_idle_cores(stage: str, experiment: Experiment, cores: int) -> None:
    if stage == "4c" and experiment.stamps.bricks_per_chunk < 2 * cores:
        print(
            f"submit: stamps.bricks_per_chunk = {experiment.stamps.bricks_per_chunk} for {cores} cores: a chunk's "
            f"bricks are its unit of work, so cores stand idle; {4 * cores} would keep them busy",
            file=sys.stderr,
        )
