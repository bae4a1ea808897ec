"""`streampose bench`: measures the speed on this machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from streampose.cli.flags import add_flags
from streampose.cli.json_file import check_json, write_json
from streampose.cli.process import set_up_process
from streampose.cli.terminal import print_data
from streampose.options import options_of

_NOT_MEASURED = frozenset(["json", "overwrite"])
"""Options of the command that are not parameters of `run_bench`."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    bench = commands.add_parser(
        "bench",
        help="measure the speed on this machine",
        description="Measure the speed on a recording and compare it with the loop of the ViTPose documentation and "
        "with the networks alone. If the results of streampose and of that loop disagree, no speed is reported.",
    )
    bench.set_defaults(command=run)
    bench.add_argument("source", metavar="SOURCE", nargs="?", default="demo", help="a recording (default: demo)")
    add_flags(bench, "bench")
    return bench


def run(arguments: argparse.Namespace) -> int:
    """Measure and print the results. Return the exit code."""
    given = vars(arguments)
    names = {option.name for option in options_of("bench")} - _NOT_MEASURED
    values: dict[str, Any] = {name: value for name, value in given.items() if name in names}
    file = given.get("json")
    if file is not None:
        check_json(file, [arguments.source], overwrite=given.get("overwrite", False))
    from streampose.bench.bench import run_bench
    from streampose.bench.report import table

    set_up_process()
    report = run_bench(arguments.source, **values)
    if file is not None:
        write_json(file, asdict(report))
    print_data(table(report))
    return 0
