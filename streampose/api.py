"""The Python entry points: `stream` builds a pipeline from texts and options, `load` an estimator for images in memory.

Does no work itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from numbers import Integral
from types import SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Any, Literal

from streampose.errors import UsageError
from streampose.inputs import DEFAULT_MAX_PIXELS, Input
from streampose.networks.known import DEFAULT_QUALITY, Quality
from streampose.options import DEFAULT_KEYPOINT_THRESHOLD, check, options_of
from streampose.people import REMEMBER_S
from streampose.sinks.sink import SharedSink, Sink

if TYPE_CHECKING:
    from streampose.drawing.annotator import Annotator, ColourBy, Hide, Style
    from streampose.drawing.faces import Blur
    from streampose.estimator import Estimator
    from streampose.frames import Skeleton
    from streampose.networks.geometry import Blur as HeatmapBlur
    from streampose.pipeline.pipeline import Pipeline

log = logging.getLogger("streampose")

_OTHERS = frozenset(["to", "stats", "quiet", "progress"])
_OPTIONS = [option.name for option in options_of("run") if not option.of_source and option.name not in _OTHERS]
"""The parameters of `stream` that are options."""
OF_NETWORKS = (
    *("quality", "pose", "detector", "classes", "dataset_index", "allow_pickle", "device", "dtype", "compile"),
    *("warm_up", "box_threshold", "max_people", "flip_test", "heatmap_blur", "detect_batch", "pose_batch"),
)
"""The options that the networks are loaded with."""

_WITHOUT_EFFECT = frozenset(["overwrite", "resume", "stall_after_s", "mirror", "fullscreen", "compile", "warm_up"])
"""The options that change nothing in the files that a run makes."""

Target = str | os.PathLike[str] | Sink | SharedSink


def stream(
    source: str | int | os.PathLike[str] | Input | Iterable[str | int | os.PathLike[str] | Input],
    *,
    to: Target | Iterable[Target] = (),
    overwrite: bool = False,
    resume: bool = False,
    segment_s: float | None = None,
    speed: float = 1.0,
    quality: Quality = DEFAULT_QUALITY,
    pose: str | None = None,
    detector: str | None = None,
    classes: str | Sequence[str | int] | None = None,
    dataset_index: int | None = None,
    allow_pickle: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    compile: bool = False,
    warm_up: bool = False,
    box_threshold: float | None = None,
    max_people: int | None = None,
    track: bool = True,
    remember_s: float = REMEMBER_S,
    only: str | int | None = None,
    smooth: Literal["off", "drawn", "data"] = "drawn",
    detect_every: int | Literal["auto"] = 1,
    flip_test: bool = False,
    heatmap_blur: HeatmapBlur | None = None,
    detect_batch: int | None = None,
    pose_batch: int | None = None,
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
    draw: bool = False,
    results_wanted: bool = True,
    stall_after_s: float = 300.0,
) -> Pipeline:
    """Find people and their poses in one or several sources, frame by frame.

        for result in streampose.stream("clip.mp4"):
            print(result.frame.pts_s, result.people.keypoints_xy)

    Recordings and sinks are opened, and networks are loaded, before this returns. Work begins when you iterate over the
    pipeline; live sources are connected then. Only HTTP addresses are opened earlier, to find out whether they are
    recordings. Use the pipeline as a context manager if you may leave the loop early.

    Args:
        source: a video file, a still, a folder or glob of stills, `demo`, a camera (0, `/dev/video2`), an RTSP, RTMP
            or HTTP address, or `-` for a video on standard input; or an `Input`, which has its own options; or several
            of these.
        to: sinks, as texts (see `streampose.sinks.open.open_sink`) or objects, for all sources without sinks of their
            own. `{source}` in a text stands for the name of the source.
        overwrite: replace existing files.
        resume: continue an interrupted run with the same arguments. Data become the same, byte for byte, as without
            the interruption, and so do the frames of videos. The results of this run begin where it continues.
            Recordings that are files can be continued, into files. Sources whose outputs are complete are left out.
        segment_s: start a new video file every `segment_s` seconds.
        speed: speed of video files and of a recording in a window, relative to the source: 0.25 is slow motion. Data
            keep their times. Video files have no sound if it is not 1.
        quality: the pair of networks: `bundled` (small, offline), or the published pairs `fast`, `balanced` and `best`,
            which are downloaded on first use.
        pose: ViTPose checkpoint: a bundled name, a hub id or a local folder in hub layout. None selects that of
            `quality`.
        detector: detector checkpoint, named in the same way.
        classes: detector classes to find, by name or number; None finds people.
        dataset_index: expert of a mixture-of-experts (`plus`) checkpoint; None selects the first.
        allow_pickle: allow pickled weights (`pytorch_model.bin`); such files can run code.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, `xpu`.
        dtype: `auto`, `float32`, `bfloat16`, `float16`.
        compile: compile the networks in the background (accelerators only); torch caches the result for the next run.
        warm_up: like `compile`, but the first batch of each size waits until it is compiled.
        box_threshold: minimum score of a box, 0..1; None uses the detector's default.
        max_people: maximum people per frame; the best boxes are kept. None sets no limit.
        track: give people identities that last. Stills have none.
        remember_s: how long somebody who is out of sight is remembered, in seconds.
        only: keep one person and leave out the others: `largest` or `centre` (chosen when first seen, then kept by
            identity), or an identity.
        smooth: take the tremble out of the keypoints of tracked people. `drawn` draws them smoothed; data have both, as
            `People.smooth_xy` beside `keypoints_xy`. `data` replaces `keypoints_xy`.
        detect_every: run the detector only on every Nth frame, and earlier if following becomes uncertain. In between,
            follow people by their keypoints. `auto` runs it as often as the frame rate allows. On stills, the detector
            runs on each.
        flip_test: average the heatmaps with those of the mirrored crops: slightly better keypoints, but the pose
            network takes twice as long.
        heatmap_blur: heatmap smoothing before the sub-pixel step, as in transformers (`hf`) or the original ViTPose
            (`paper`). None selects `paper`.
        detect_batch: maximum frames per detector call; None uses the device's default.
        pose_batch: maximum people per pose call; None uses the device's default.
        keypoint_threshold: minimum score of a drawn keypoint; data contain all keypoints.
        style: `lines` or `weighted`.
        boxes: draw the box of each person.
        labels: draw the identity (or class) and box score of each person.
        colour_by: `side` gives the sides of the body different colours, `person` each person.
        ellipses: draw around each keypoint the ellipse that holds its true place with a probability of 90 %.
        angles: names of angles to draw, such as `left_knee`, or `knee` for both sides.
        hide: `background` draws on black instead of the frame, and on nothing in `.png` and `.webp` stills.
        blur: `faces` makes the faces of all people found unrecognizable, in the frames of the results as well. The
            faces of people who are not found stay as they are.
        mirror: show windows mirrored; None mirrors only cameras of this machine.
        fullscreen: show windows on the full screen.
        draw: draw every result, even if no sink needs it.
        results_wanted: continue for the caller after all sinks have failed.
        stall_after_s: abort if a step makes no progress for this many seconds.

    Raises:
        UsageError: a value is invalid, or the interrupted run had another source, network or option.
        NothingToDo: the run is complete (with `resume` only).
        SourceError, ModelError, SinkError: a source or sink cannot be opened, or a network cannot be loaded. During the
            iteration, these errors, `AnnotateError` and `StalledError` are raised after all results before the failure.
    """
    dtype = str(dtype).removeprefix("torch.")
    asked = SimpleNamespace(**check(locals(), _OPTIONS))
    if asked.resume and asked.overwrite:
        raise UsageError("`resume` continues the outputs, and `overwrite` replaces them: use one of them")
    if isinstance(asked.only, int) and not asked.track:
        raise UsageError(f"`only` names identity {asked.only}, but `track` is off: allow tracking")
    inputs = [one if isinstance(one, Input) else Input(one) for one in listed(source, Input)]
    wanted = [listed(to if one.to is None else one.to, Sink | SharedSink) for one in inputs]
    from streampose.archive.resume import refuse_half_done, resumptions
    from streampose.sinks.desk import WindowSettings
    from streampose.sinks.open import open_sinks
    from streampose.sources.open import open_source

    with ExitStack() as opened:
        origins = [opened.enter_context(open_source(one, is_alone=len(inputs) == 1)) for one in inputs]
        if not (asked.resume or asked.overwrite):
            refuse_half_done([origin.info for origin in origins], wanted)
        sinks = open_sinks(
            opened,
            [origin.info for origin in origins],
            wanted,
            overwrite=asked.overwrite or asked.resume,
            segment_s=asked.segment_s,
            speed=asked.speed,
            window=WindowSettings(mirror=asked.mirror, fullscreen=asked.fullscreen, speed=asked.speed),
        )
        named = {name: value for name, value in vars(asked).items() if name not in _WITHOUT_EFFECT}
        begun = resumptions(origins, sinks, inputs, named, resume=asked.resume)
        from streampose.assembly import Assembly  # after the cheap checks, because this import takes seconds

        assembly = Assembly(asked)
        feeds = [one.continued(assembly.feed(one.source, one.sinks), assembly.identity()) for one in begun]
        pipeline = assembly.pipeline(feeds, draw=draw, results_wanted=results_wanted)
        opened.pop_all()
    return pipeline


def load(
    *,
    quality: Quality = DEFAULT_QUALITY,
    pose: str | None = None,
    detector: str | None = None,
    classes: str | Sequence[str | int] | None = None,
    dataset_index: int | None = None,
    allow_pickle: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    compile: bool = False,
    warm_up: bool = False,
    box_threshold: float | None = None,
    max_people: int | None = None,
    flip_test: bool = False,
    heatmap_blur: HeatmapBlur | None = None,
    detect_batch: int | None = None,
    pose_batch: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Estimator:
    """Load both networks for images in memory.

        estimator = streampose.load()
        result = estimator(image)  # (H, W, 3) uint8 BGR, an image of Pillow, or the path of a still
        results = estimator([image, other])
        result = estimator(image, boxes=[[100, 50, 300, 400]])

    Args:
        max_pixels: refuse stills with more pixels.

    The other arguments are those of `stream`.

    Raises:
        UsageError: a value is invalid.
        ModelError: a network cannot be found, downloaded or loaded.
    """
    dtype = str(dtype).removeprefix("torch.")
    asked = check(locals(), [*OF_NETWORKS, "max_pixels"])
    from streampose.estimator import Estimator
    from streampose.networks.pair import load_pair

    return Estimator(load_pair(**{name: asked[name] for name in OF_NETWORKS}), max_pixels=asked["max_pixels"])


def annotator_of(skeleton: Skeleton, asked: SimpleNamespace) -> Annotator:
    """Return the annotator that the checked options of a run ask for. Raises `UsageError`."""
    from streampose.drawing.annotator import Annotator

    try:
        return Annotator(
            skeleton,
            style=asked.style,
            min_score=asked.keypoint_threshold,
            boxes=asked.boxes,
            labels=asked.labels,
            colour_by=asked.colour_by,
            ellipses=asked.ellipses,
            angles=asked.angles,
            hide=asked.hide,
        )
    except UsageError as error:
        raise UsageError(f"`angles`: {error}") from error


def listed(values: Any, kind: type | UnionType) -> list[Any]:
    """Return `values` as a list. A single text, path or `kind` becomes a list of one; None becomes an empty list."""
    if values is None:
        return []
    return [values] if isinstance(values, str | os.PathLike | Integral | kind) else list(values)
