"""`streampose plot`: draws curves and maps of recorded poses."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from streampose.cli.flags import add_flags, given_part
from streampose.cli.terminal import say
from streampose.errors import UsageError
from streampose.sinks.target import name_of, size_text

if TYPE_CHECKING:
    from streampose.frames import Image
    from streampose.records.plot import Plot

EXAMPLES = """\
examples:
  streampose plot poses.jsonl -o angles.png
  streampose plot poses.jsonl --what angles --angles knee,elbow --person 3 -o knee.svg
  streampose plot poses.jsonl --what speed --start 10s --end 20s -o speed.png
  streampose plot poses.jsonl --what timeline -o who.png
  streampose plot poses.jsonl --what path --frame clip.mp4 -o path.png
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "plot",
        help="plot recorded poses",
        description="Plot recorded poses: angles, keypoints and speed over time, paths and heat maps in the frame, and "
        "a time line of people.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    parser.add_argument("poses", metavar="POSES", help="a poses file, as --to poses.jsonl writes it")
    parser.add_argument("-o", "--to", metavar="FILE", required=True, help="the .png or .svg file to write")
    add_flags(parser, "plot")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Write the plot and say so. Return the exit code."""
    from streampose.records.plot import Plot
    from streampose.records.plot_style import check_plot_file, save_plot
    from streampose.records.poses import RecordedPoses

    given = dict(vars(arguments))
    poses, path = RecordedPoses(arguments.poses, given_part(arguments)), Path(arguments.to)
    overwrite, video = given.get("overwrite", False), given.get("frame")
    check_plot_file(path, overwrite=overwrite, source_paths=[poses.path] if video is None else [poses.path, video])
    names = ("what", "person", "angles", "keypoints", "source_name", "keypoint_threshold")
    plot = Plot(poses, **{name: given[name] for name in names if name in given})
    figure = plot.draw(None if video is None else frame_of(video, plot))
    size_bytes = save_plot(figure, path, overwrite=overwrite)
    say(f"written  {name_of(path)}: {size_text(size_bytes)}")
    if plot.damage is not None:
        raise UsageError(f"{plot.damage}; what precedes it was plotted")
    return 0


def frame_of(video: str, plot: Plot) -> Image:
    """Return the frame of a video in the middle of what is plotted; of a shorter one, its last frame.

    Raises `UsageError` and `SourceError`.
    """
    from streampose.sources.open import is_live_text, open_source

    plot.check_has_picture()
    if is_live_text(video):
        raise UsageError(f"`frame`: {video} is not a file: name a video or a still")
    with open_source(video) as source:
        until_s = plot.middle_s - 1e-6  # times that were computed differ in the last digit
        for frame in source.frames():
            image = frame.image
            if frame.pts_s >= until_s:
                break
    return image
