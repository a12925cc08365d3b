r"""Confront a finder with real lenses and real look-alikes, at positions that are checked before they are believed.

    python -m evaluation.anchors --checkpoint best.pt --metrics RUN/evaluation/metrics.json \
        --source https://SERVER/dr10/south --cache anchors-cache --out RUN/evaluation

Which lenses. Each set is stated by itself; none is added to another.
    SLACS, BELLS              99 lenses that come with the code: found in spectra, mostly nearer and brighter than the
                              targets, many without an arc that this seeing shows: a stress test
    independent               the headline: confirmed by spectra or sharper images, found without Legacy imaging
    spectroscopic             further lenses found in spectra and confirmed by the Hubble telescope
    graded_in_hsc             found in deeper, sharper HSC images, graded definite by eye
    spectroscopic_candidates  a second redshift in a spectrum, and nothing else yet
    found_in_legacy           found by networks or people in these very images: recall on them flatters
The last five are an allow-list of papers over lenscat, whose table you give (the package has more than you need):
    pip download --no-deps lenscat && unzip lenscat-*.whl lenscat/data/catalog.csv
    ... --lenscat lenscat/data/catalog.csv
--lenses NAME=FILE adds a set of yours, --contaminants FILE things that are no lenses, with a column of types (ring,
merger, spiral). Such a file has columns name, ra, dec in decimal degrees (hours and sexagesimal text are refused) and,
where they are known, theta_e_arcsec and src_mag_r: what an arc is expected to look like is stated from them.

Which gates. An anchor is scored only if it has a catalogued galaxy (extended, z < 21) within 1.5 arcsec, lies in the
footprint in g, r and z, has a stamp by the pipeline's own rules, the light's centroid within 1 arcsec of the position,
and a name that does not contradict it. Every refusal is listed with its gate and reason.

Which pixels. Brick coadds, read as the training set was: about 79 MB a brick, kept in --cache, so a second run needs no
network (--offline). --cutout-service asks a viewer's service where a brick cannot be had; it resamples, so those
scores are listed and never counted.

What comes out, in --out: anchors.json (tables of recall and contamination with N and 95 % intervals, at the thresholds
of --metrics; `python -m evaluation.report` shows it), anchors.parquet (one row an anchor, scored or refused), and a
sheet of pictures of each set.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from darkhaloscope.errors import Explained
from darkhaloscope.experiment import Experiment
from darkhaloscope.pack.packing import pixels_of
from darkhaloscope.provenance import sha256_of
from darkhaloscope.storage import join
from darkhaloscope.survey.bricks import read_brick_table
from darkhaloscope.survey.positions import Positions
from darkhaloscope.survey.transfer import client_of
from darkhaloscope.writing import atomic_output
from evaluation.anchors import sets
from evaluation.anchors.galaxies import local_file
from evaluation.anchors.lenscat import ADMITTED
from evaluation.anchors.pixels import Source, check
from evaluation.anchors.section import NAME, as_table, section_of
from evaluation.command import command_line, explaining
from evaluation.committee import Committee, load_committee
from evaluation.section import Section, write
from evaluation.thresholds import read_metrics

BATCH = 256


class AnchorsError(Explained, ValueError):
    """Anchors that cannot be confronted; the message says what was found and what to do."""


def read_sets(args: argparse.Namespace) -> tuple[Positions, dict[str, int]]:
    """Return all anchors, those of one place once, and how many rows of lenscat were left out by reason.

    Raises:
        CatalogueError, FileNotFoundError: a file that cannot be used.
    """
    left_out: dict[str, int] = {}
    found = [] if args.without_slacs_bells else [sets.slacs_bells()]
    found += [sets.from_file(url, name, args.units) for name, url in args.lenses]
    if args.lenscat:
        more, left_out = sets.lenscat(args.lenscat, args.kinds)
        found.append(more)
    for url in args.contaminants:
        found.append(sets.at_most(sets.from_file(url, "", args.units), args.per_type))
    if not found:
        raise AnchorsError(
            "no anchors: give --lenses, --lenscat or --contaminants, or leave out --without-slacs-bells"
        )
    return sets.join(found), left_out


def logits_of(committee: Committee, stamps: pa.Table) -> np.ndarray:
    """Return the logit of each stamp, (m,) float32."""
    made = [np.empty(0, np.float32)]
    for start in range(0, stamps.num_rows, BATCH):
        made.append(committee.score(stamps.slice(start, BATCH).combine_chunks(), NAME)["logit"])
    return np.concatenate(made)


def run(args: argparse.Namespace) -> Section:
    """Read, gate, cut, score and write; return the section."""
    checkpoint = sha256_of(Path(args.checkpoint))[:16]
    metrics = read_metrics(args.metrics, {"checkpoint": checkpoint})
    anchors, left_out = read_sets(args)
    committee = load_committee(
        [args.checkpoint], d4=bool(metrics["scored_with"].get("d4")), device=args.device
    )
    experiment = _at(committee.members[0].experiment, args)
    survey, client = experiment.survey, client_of(experiment.fetch)
    bricks = read_brick_table(local_file(survey.source, survey.bricks_table, args.cache, client))
    checked = check(anchors, experiment, Source(bricks, args.cache, client, args.cutout_service))
    table = as_table(checked, logits_of(committee, checked.stamps))
    with atomic_output(join(args.out, f"{NAME}.parquet")) as sink:
        pq.write_table(table, sink)
    stamps = dict(zip(checked.row.tolist(), pixels_of(checked.stamps), strict=True))
    made_from = {"checkpoint": checkpoint, "thresholds": metrics["scores_hash"]}
    section = section_of(table, stamps, metrics, made_from, left_out, args.out)
    write(args.out, NAME, section)
    return section


def _at(experiment: Experiment, args: argparse.Namespace) -> Experiment:
    """Return the checkpoint's experiment with the survey read from where the command line says."""
    survey = experiment.survey
    source = args.cache if args.offline else args.source or survey.source
    survey = dataclasses.replace(survey, source=source, **({"sweeps": args.sweeps} if args.sweeps else {}))
    return dataclasses.replace(experiment, survey=survey)


def _named(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    if not (name and url) or name == sets.CONTAMINANTS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=FILE, as agel=agel.csv")
    return name, url


def _which(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--lenscat", default="", metavar="FILE", help="lenscat's catalog.csv")
    group.add_argument(
        "--kinds",
        nargs="+",
        default=list(ADMITTED),
        choices=ADMITTED,
        metavar="SET",
        help="sets of lenscat (default all)",
    )
    group.add_argument(
        "--lenses", nargs="+", type=_named, default=[], metavar="NAME=FILE", help="further sets of lenses"
    )
    group.add_argument(
        "--contaminants", nargs="+", default=[], metavar="FILE", help="no lenses, with a column of types"
    )
    group.add_argument(
        "--per-type", type=int, default=100, help="contaminants of a type at most (default 100)"
    )
    group.add_argument(
        "--units", default="", choices=("deg",), help="right ascensions are degrees, though all below 24"
    )
    group.add_argument("--without-slacs-bells", action="store_true", help="leave the built-in 99 lenses out")


def _where(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--source", default="", help="the survey's root, with coadd/ below it (default the checkpoint's)"
    )
    group.add_argument("--sweeps", default="", help="sweeps below it, where a brick has no Tractor file")
    group.add_argument("--cache", default="", help="folder that keeps what a web server gave")
    group.add_argument("--offline", action="store_true", help="read --cache alone; ask no server")
    group.add_argument(
        "--cutout-service", default="", metavar="URL", help="fallback for bricks that cannot be had"
    )


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line(
        "anchors", __doc__, "%(prog)s --checkpoint FILE --metrics FILE --out FOLDER [more, see below]"
    )
    p.add_argument("--checkpoint", required=True, metavar="FILE", help="finder to confront")
    p.add_argument(
        "--metrics",
        required=True,
        metavar="FILE",
        help="metrics.json of evaluation.evaluate for it: the thresholds",
    )
    p.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="folder for anchors.json, anchors.parquet and the sheets",
    )
    _which(p.add_argument_group("which anchors"))
    _where(p.add_argument_group("which pixels"))
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    return p


@explaining("anchors")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    args = parser().parse_args(argv)
    if args.offline and (not args.cache or args.cutout_service):
        parser().error("--offline reads --cache: give it, and no --cutout-service")
    section = run(args)
    print(section.lead)
    for r in section.figures["recall"]:
        if r["stratum"] == "all" and r["n"]:
            print(
                f"{r['set']:16s} {r['fpr']:8s} {r['found']:4d} of {r['n']:4d}  [{r['low95']:.3f}, {r['high95']:.3f}]"
            )
    print(f"-> {join(args.out, NAME)}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
