"""`streampose models`: lists recommended networks."""

from __future__ import annotations

import argparse

from streampose.cli.terminal import print_data
from streampose.networks.known import models_table, qualities_table


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    models = commands.add_parser(
        "models",
        help="list recommended networks",
        description="List recommended networks, bundled or on the Hugging Face hub, and the pairs that --quality "
        "selects. Other ViTPose checkpoints and all checkpoints for AutoModelForObjectDetection can be used as well.",
    )
    models.set_defaults(command=run)
    return models


def run(_arguments: argparse.Namespace) -> int:
    """Print the tables; return the exit code."""
    print_data(f"{models_table()}\n\n{qualities_table()}")
    return 0
