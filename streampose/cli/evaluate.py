"""`streampose evaluate`: measures the accuracy of pose networks on labelled images, or of recorded poses."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from streampose.cli.flags import add_flags
from streampose.cli.json_file import check_json, write_json
from streampose.cli.process import set_up_process
from streampose.cli.terminal import print_data
from streampose.errors import UsageError
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE
from streampose.options import options_of

DESCRIPTION = """\
With --coco, run pose networks on labelled images and print AP, AR, PCK and speed. With --truth,
compare recorded poses with the ground truth and print PCK, HOTA, IDF1, smoothness and more; no
network runs. The result is a table in Markdown with a column for each network or file. This
command needs: pip install 'streampose[evaluate]'
"""
EXAMPLES = """\
examples:
  streampose evaluate --coco annotations.json images/
  streampose evaluate --coco annotations.json images/ --pose NAME --pose NAME --json figures.json
  streampose evaluate --coco annotations.json images/ --boxes detected
  streampose evaluate poses.jsonl smooth.jsonl --truth truth.json
"""
_OF_FILES = frozenset(["coco", "truth", "json", "overwrite"])
"""Options of the command that are not parameters of `run_evaluation`."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    evaluate = commands.add_parser(
        "evaluate",
        help="measure the accuracy of networks or of recorded poses",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.set_defaults(command=run)
    evaluate.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="with --coco, the folder of the images; with --truth, poses files"
    )
    add_flags(evaluate, "evaluate")
    return evaluate


def run(arguments: argparse.Namespace) -> int:
    """Print the table. Return the exit code."""
    given = vars(arguments)
    file: str | None = given.get("json")
    inputs: list[str] = arguments.inputs
    if ("coco" in given) == ("truth" in given):
        raise UsageError("give either `coco`, to evaluate networks, or `truth`, to evaluate poses files")
    path: str = given["coco"] if "coco" in given else given["truth"]
    names = {option.name for option in options_of("evaluate")} - _OF_FILES
    of_networks = {name: value for name, value in given.items() if name in names}
    if file is not None:
        check_json(file, [*inputs, path], overwrite=given.get("overwrite", False))
    if "coco" in given:
        return _networks(path, inputs, of_networks, file)
    for name in of_networks:
        raise UsageError(f"`{name}` needs `coco`: poses files are evaluated without networks")
    return _poses(inputs, path, file)


def _networks(annotations: str, inputs: list[str], of_networks: Mapping[str, Any], file: str | None) -> int:
    if len(inputs) > 1:
        raise UsageError(f"`coco` needs one folder of images, not {len(inputs)}")
    from streampose.bench.accuracy import accuracy_table, run_evaluation

    set_up_process()
    values = {"poses": [DEFAULT_POSE], "detector": DEFAULT_DETECTOR, **of_networks}
    report = run_evaluation(annotations, inputs[0], **values)
    if file is not None:
        write_json(file, asdict(report))
    print_data(accuracy_table(report))
    return 0


def _poses(inputs: list[str], path: str, file: str | None) -> int:
    from streampose.records.coco_truth import read_any_truth
    from streampose.records.evaluate import evaluate_poses, poses_table

    truth = read_any_truth(path)
    reports = [evaluate_poses(one, truth) for one in inputs]
    if file is not None:
        write_json(file, {"truth": truth.name, "files": [asdict(report) for report in reports]})
    print_data(poses_table(reports))
    return 0
