"""`streampose draw`: draws recorded poses again, without networks."""

from __future__ import annotations

import argparse

from streampose.cli.flags import add_flags
from streampose.cli.process import INTERRUPTED, interrupts, set_up_process
from streampose.cli.status import run_to_end
from streampose.cli.terminal import say_as_json
from streampose.inputs import Input, parse_input
from streampose.options import options_of
from streampose.redraw import draw

EXAMPLES = """\
examples:
  streampose draw clip.mp4 poses.jsonl --to again.mp4 --style weighted --only 3
  streampose draw clip.mp4 poses.jsonl --to skeletons/ --hide background
  streampose draw clip.mp4 poses.jsonl --to public.mp4 --blur faces
  streampose draw clip.mp4 poses.jsonl --angles knee,elbow
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "draw",
        help="draw recorded poses again",
        description="Draw a recording again with the poses of an earlier run, without networks.\n"
        "With the drawing options of that run, the frames are identical.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="the recording: a video file, stills, demo, video at a URL, or - for standard input; NAME=SOURCE selects "
        "one source of a poses file that has several",
    )
    parser.add_argument("poses", metavar="POSES", help="the poses file (.jsonl) that the run wrote")
    add_flags(parser, "draw")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Draw to the end of the recording. Return the exit code."""
    given = vars(arguments)
    values = {option.name: given[option.name] for option in options_of("draw") if option.name in given}
    quiet, progress = values.pop("quiet", False), values.pop("progress", "auto")
    values.setdefault("to", ["window"])
    name, source = parse_input(arguments.source)
    of_source = {option.name for option in options_of("draw") if option.of_source}
    one = Input(source, name, **{key: values.pop(key) for key in of_source & values.keys()})
    say_as_json(progress == "json" and not quiet)
    set_up_process()
    with draw(one, arguments.poses, **values, results_wanted=False) as drawing, interrupts(drawing) as interrupted:
        run_to_end(drawing, progress, shown=not quiet)
    return INTERRUPTED if interrupted() else 0
