"""`streampose smooth`: smooths recorded keypoints without lag."""

from __future__ import annotations

import argparse
from pathlib import Path

from streampose.cli.flags import add_flags, given_part
from streampose.cli.terminal import say


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    smooth = commands.add_parser(
        "smooth",
        help="smooth recorded keypoints over time",
        description="Smooth the keypoints in a poses file over time. Frames before and after each keypoint "
        "are used, so the result is steadier and more accurate than the smoothing of a run, and does not lag. The new "
        "file has the result under smoothed; everything else stays as it is.",
    )
    smooth.set_defaults(command=run)
    smooth.add_argument("poses", metavar="POSES", help="a poses file (.jsonl) of a run with identities")
    smooth.add_argument("--to", metavar="FILE", required=True, help="the .jsonl file to write")
    add_flags(smooth, "smooth")
    return smooth


def run(arguments: argparse.Namespace) -> int:
    """Write the smoothed file and print what was written. Return the exit code."""
    from streampose.records.smooth import smooth_poses

    overwrite = vars(arguments).get("overwrite", False)
    done = smooth_poses(Path(arguments.poses), Path(arguments.to), overwrite=overwrite, part=given_part(arguments))
    say(f"written  {done}")
    return 0
