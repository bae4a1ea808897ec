"""The Python entry point `draw`: builds a run that draws recorded poses again. Does no work itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

from streampose.api import Target, annotator_of, listed
from streampose.errors import UsageError
from streampose.inputs import Input
from streampose.options import DEFAULT_KEYPOINT_THRESHOLD, check, options_of
from streampose.records.poses import read_poses
from streampose.sinks.sink import SharedSink, Sink
from streampose.sinks.target import is_same, name_of

if TYPE_CHECKING:
    from streampose.drawing.annotator import ColourBy, Hide, Style
    from streampose.drawing.faces import Blur
    from streampose.frames import Result
    from streampose.pipeline.run import Run

_OTHERS = frozenset(["to", "quiet", "progress"])
_OPTIONS = [option.name for option in options_of("draw") if not option.of_source and option.name not in _OTHERS]
"""The parameters of `draw` that are options."""


def draw(
    source: str | os.PathLike[str] | Input,
    poses: str | os.PathLike[str],
    *,
    to: Target | Iterable[Target] = (),
    overwrite: bool = False,
    segment_s: float | None = None,
    speed: float = 1.0,
    only: str | int | None = None,
    smooth: Literal["off", "drawn", "data"] = "drawn",
    keypoint_threshold: float = DEFAULT_KEYPOINT_THRESHOLD,
    style: Style = "lines",
    boxes: bool = False,
    labels: bool = False,
    colour_by: ColourBy = "side",
    ellipses: bool = False,
    angles: str | Sequence[str] | None = None,
    hide: Hide | None = None,
    blur: Blur | None = None,
    mirror: bool | None = None,
    fullscreen: bool = False,
    results_wanted: bool = True,
    stall_after_s: float = 300.0,
) -> Run:
    """Draw a recording with the poses that were found in it before. No network is loaded.

        with streampose.draw("clip.mp4", "poses.jsonl", to="again.mp4", style="weighted") as run:
            for result in run:
                pass

    With the options of the run that wrote the poses, the pictures are the same, pixel by pixel. Frames that are not in
    the file, because the run dropped them, are left out.

    Args:
        source: the recording, as for `stream`. If it is an `Input` with a name, the people of that source are drawn.
        poses: a poses file, as `to="poses.jsonl"` writes it.
        smooth: `drawn` draws the smoothed keypoints, if the file has them. `data` replaces `keypoints_xy` by them.
            `off` leaves them out.
        to, overwrite, segment_s, speed, only, keypoint_threshold, style, boxes, labels, colour_by, ellipses, angles,
        hide, blur, mirror, fullscreen, results_wanted, stall_after_s: see `stream`.

    Raises:
        UsageError: a value is invalid, the source is live, or `poses` is not a poses file.
        SourceError, SinkError: the source or a sink cannot be opened. During the iteration, these errors, `UsageError`
            (the file is damaged, or not of this recording), `AnnotateError` and `StalledError` are raised after all
            results before the failure.
    """
    asked = SimpleNamespace(**check(locals(), _OPTIONS))
    one = source if isinstance(source, Input) else Input(source)
    wanted = listed(to if one.to is None else one.to, Sink | SharedSink)
    recorded = read_poses(poses)
    if any(is_same(Path(target), recorded.path) for target in wanted if isinstance(target, str | os.PathLike)):
        raise UsageError(f"{name_of(recorded.path)} is the poses file itself: choose another file")
    from streampose.sinks.desk import WindowSettings
    from streampose.sinks.open import open_sinks
    from streampose.sources.open import open_source

    with ExitStack() as opened:
        origin = opened.enter_context(open_source(one))
        if origin.info.is_live:
            raise UsageError(f"{origin.info.text} is live: name the recording that the poses were found in")
        (sinks,) = open_sinks(
            opened,
            [origin.info],
            [wanted],
            overwrite=asked.overwrite,
            segment_s=asked.segment_s,
            speed=asked.speed,
            window=WindowSettings(mirror=asked.mirror, fullscreen=asked.fullscreen, speed=asked.speed),
        )
        from streampose.drawing.faces import FaceBlur
        from streampose.people.only import Only
        from streampose.pipeline.parts import Feed, Step
        from streampose.pipeline.recalled import RecalledRun
        from streampose.records.recall import Recall
        from streampose.sinks.controls import Controls

        annotator = annotator_of(recorded.skeleton, asked)
        kept = Only(asked.only)
        steps: list[Step] = [kept]
        if asked.blur is not None:
            steps.insert(0, FaceBlur(recorded.skeleton, stills=bool(origin.info.stills)))
        if asked.smooth != "drawn":
            steps.append(_unsmoothed if asked.smooth == "off" else _smoothed)
        for sink in sinks:
            sink.take_controls(Controls(annotator, kept))
        run = RecalledRun(
            Feed(origin, sinks, steps=steps),
            Recall(recorded, origin.info.text, one.name, origin.info.part),
            recorded.skeleton,
            recorded.header.get("models", {}),
            annotator,
            results_wanted=results_wanted,
            stall_after_s=asked.stall_after_s,
        )
        opened.pop_all()
    return run


def _unsmoothed(result: Result) -> Result:
    """Return the result with its raw keypoints only."""
    return replace(result, people=replace(result.people, smooth_xy=None))


def _smoothed(result: Result) -> Result:
    """Return the result with its smoothed keypoints only, if there are any."""
    people = result.people
    xy = people.keypoints_xy if people.smooth_xy is None else people.smooth_xy
    return replace(result, people=replace(people, keypoints_xy=xy, smooth_xy=None))
