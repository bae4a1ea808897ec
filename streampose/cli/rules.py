"""`streampose rules`: tries rules on recorded poses."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from streampose.cli.flags import add_flags, given_part
from streampose.cli.terminal import print_data, say
from streampose.errors import UsageError
from streampose.people.events import Event, record_of, text_of

EXAMPLES = """\
examples:
  streampose rules poses.jsonl --config rules.toml
  streampose rules poses.jsonl --config rules.toml --start 10s --end 1m20s
  streampose rules poses.jsonl --config rules.toml --json > events.jsonl
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "rules",
        help="try rules on recorded poses",
        description="Apply the rules of a TOML file to recorded poses and print the events, one per line.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    parser.add_argument("poses", metavar="POSES", help="a poses file, as --to poses.jsonl writes it")
    parser.add_argument(
        "--config",
        metavar="FILE",
        required=True,
        help="the TOML file with the rules; it may be that of a run",
    )
    add_flags(parser, "rules")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the events. Return the exit code."""
    from streampose.records.poses import RecordedPoses
    from streampose.records.rules import try_rules
    from streampose.rule_file import read_rules

    as_json = vars(arguments).get("as_json", False)
    line_of: Callable[[Event], str] = _json if as_json else text_of
    book = read_rules(arguments.config)
    tried = try_rules(
        RecordedPoses(arguments.poses, given_part(arguments)), book, lambda event: print_data(line_of(event))
    )
    for warning in tried.warnings:
        say(f"streampose: {warning}")
    say(tried.summary)
    if tried.damage is not None:
        raise UsageError(f"{tried.damage}; the rules were tried on what precedes it")
    return 0


def _json(event: Event) -> str:
    return json.dumps(record_of(event), allow_nan=False)
