"""`streampose convert`: writes recorded poses in another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from streampose.cli.flags import add_flags, given_part
from streampose.cli.terminal import say
from streampose.errors import UsageError
from streampose.records.convert import convert
from streampose.records.formats import UNDERSTOOD

EXAMPLES = """\
examples:
  streampose convert poses.jsonl poses.csv
  streampose convert poses.jsonl poses.parquet
  streampose convert poses.jsonl poses.results.json
  streampose convert poses.jsonl poses.trc
  streampose convert poses.jsonl second-minute.csv --start 1m --end 2m
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "convert",
        help="write recorded poses in another format",
        description="Write recorded poses in another format. The same names work as --to of a run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    parser.add_argument("poses", metavar="POSES", help="a poses file, as --to poses.jsonl writes it")
    parser.add_argument("output", metavar="OUT", help=UNDERSTOOD)
    add_flags(parser, "convert")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Convert the file; return the exit code."""
    overwrite = vars(arguments).get("overwrite", False)
    done = convert(arguments.poses, Path(arguments.output), overwrite=overwrite, part=given_part(arguments))
    say(done.summary)
    if done.damage is not None:
        raise UsageError(f"{done.damage}; what precedes it was converted")
    return 0
