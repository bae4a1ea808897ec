"""`streampose models`: the networks known by name."""

from __future__ import annotations

import argparse

from streampose.cli.terminal import print_data
from streampose.networks.known import models_table


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    models = commands.add_parser(
        "models",
        help="list the networks known by name",
        description="List the networks known by name: the bundled ones, and ViTPose and detectors of the Hugging Face "
        "hub. Any other ViTPose checkpoint and any checkpoint of AutoModelForObjectDetection works as well.",
    )
    models.set_defaults(command=run)
    return models


def run(_arguments: argparse.Namespace) -> int:
    """Print the table; return the exit code."""
    print_data(models_table())
    return 0
