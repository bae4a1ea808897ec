"""The main job from Python: texts and numbers to a running pipeline. Connects the parts and does no work itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from types import SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Any, Literal

from streampose.inputs import Input
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE
from streampose.options import DEFAULT_KEYPOINT_THRESHOLD, check, options_of
from streampose.people import REMEMBER_S
from streampose.sinks.sink import SharedSink, Sink

if TYPE_CHECKING:
    from streampose.annotate import ColourBy, Style
    from streampose.networks.detector import PersonDetector
    from streampose.networks.geometry import Blur
    from streampose.networks.pose import PoseEstimator
    from streampose.pipeline.pipeline import Pipeline

log = logging.getLogger("streampose")

_OTHERS = frozenset(["to", "stats", "quiet"])
_OPTIONS = [option.name for option in options_of("run") if not option.of_source and option.name not in _OTHERS]
"""The parameters of `stream` that are options."""


Target = str | os.PathLike[str] | Sink | SharedSink


def stream(
    source: str | int | os.PathLike[str] | Input | Iterable[str | int | os.PathLike[str] | Input],
    *,
    to: Target | Iterable[Target] = (),
    overwrite: bool = False,
    segment_s: float | None = None,
    pose: str = DEFAULT_POSE,
    detector: str = DEFAULT_DETECTOR,
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
    detect_every: int | Literal["auto"] = 1,
    flip_test: bool = False,
    blur: Blur | None = None,
    detect_batch: int | None = None,
    pose_batch: int | None = None,
    keypoint_threshold: float = DEFAULT_KEYPOINT_THRESHOLD,
    style: Style = "lines",
    boxes: bool = False,
    labels: bool = False,
    colour_by: ColourBy = "side",
    draw: bool = False,
    results_wanted: bool = True,
    stall_after_s: float = 300.0,
) -> Pipeline:
    """Find people and their poses in one or several sources, frame by frame.

        for result in streampose.stream("clip.mp4"):
            print(result.frame.pts_s, result.people.keypoints_xy)

    Sinks and recordings are opened and networks are loaded before this returns. The work, and connecting to live
    sources, starts with the iteration. The pipeline is also a context manager: use it as one if you may leave the loop
    early.

    Args:
        source: a video file, a still, a folder or glob of stills, `demo`, a camera (0, `/dev/video2`), an RTSP, RTMP
            or HTTP address, `-` for a container on standard input; an `Input`, which has its own options; or several
            of these.
        to: sinks, as texts (see `streampose.sinks.open.open_sink`) or objects, for every source without its own;
            `{source}` in a text stands for the source's id.
        overwrite: replace existing files.
        segment_s: start a new video file every `segment_s` seconds.
        pose: ViTPose checkpoint: a bundled name, a hub id or a local folder in hub layout.
        detector: detector checkpoint, named in the same way.
        classes: names or numbers of the detector's classes to find; None finds people.
        dataset_index: expert of a mixture-of-experts (`plus`) checkpoint; None takes the first.
        allow_pickle: load weights that are not safetensors; such files can run code.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, `xpu`.
        dtype: `auto`, `float32`, `bfloat16`, `float16`.
        compile: on an accelerator, compile the networks while the run goes on; torch keeps the result.
        warm_up: compile, and wait for it before each first batch.
        box_threshold: lowest box score, 0..1; None takes the detector's default.
        max_people: maximum people per frame, best boxes first; None takes all.
        track: give people identities that last; stills have none.
        remember_s: how long somebody who is not seen is remembered, to be recognized on return.
        detect_every: run the detector on every Nth frame, and earlier if somebody is in doubt; in between, follow
            people from their keypoints. `auto` runs it as often as the frame rate leaves time. Stills are always
            detected.
        flip_test: average the heatmaps with those of the mirrored crops: slightly better, half the speed.
        blur: `hf` or `paper`, the Gaussian before the sub-pixel step; None takes `paper`, which measures better.
        detect_batch: maximum frames per detector call; None takes the device's default.
        pose_batch: maximum people per pose call; None takes the device's default.
        keypoint_threshold: lowest score of a drawn keypoint; data always has all.
        style: `lines` or `weighted`.
        boxes: draw the boxes.
        labels: draw a label at each box.
        colour_by: `side` colours the sides of the body, `person` each person.
        draw: draw every result, even if no sink needs it.
        results_wanted: keep going for the caller when every sink has failed.
        stall_after_s: abort if one piece of work takes longer.

    Raises:
        UsageError: a value cannot be right.
        SourceError, ModelError, SinkError: something cannot be opened. The iteration raises these, `AnnotateError` and
            `StalledError` after every result before the failure.
    """
    dtype = str(dtype).removeprefix("torch.")
    asked = SimpleNamespace(**check(locals(), _OPTIONS))
    inputs = [one if isinstance(one, Input) else Input(one) for one in _listed(source, Input)]
    wanted = [_listed(to if one.to is None else one.to, Sink | SharedSink) for one in inputs]
    from streampose.sinks.open import open_sinks
    from streampose.sources.open import open_source

    with ExitStack() as opened:
        origins = [opened.enter_context(open_source(one, is_alone=len(inputs) == 1)) for one in inputs]
        sinks = open_sinks(
            opened, [origin.info for origin in origins], wanted, overwrite=asked.overwrite, segment_s=asked.segment_s
        )
        # After the cheap checks, because these imports take seconds.
        from streampose.annotate import Annotator
        from streampose.networks.detectors import load_detector
        from streampose.networks.device import default_batches, pick_device, pick_dtype
        from streampose.networks.pose import DEFAULT_BLUR, PoseEstimator
        from streampose.people.track import Tracker
        from streampose.pipeline.parts import Feed
        from streampose.pipeline.pipeline import Pipeline

        where = pick_device(asked.device)
        precision = pick_dtype(asked.dtype, where)
        usual = default_batches(where)
        detect_batch = asked.detect_batch or usual[0]
        pose_batch = asked.pose_batch or usual[1]
        people = load_detector(
            asked.detector,
            device=where,
            dtype=precision,
            threshold=asked.box_threshold,
            classes=asked.classes,
            max_people=asked.max_people,
            max_batch=detect_batch,
            allow_pickle=asked.allow_pickle,
        )
        estimator = PoseEstimator(
            asked.pose,
            device=where,
            dtype=precision,
            blur=asked.blur or DEFAULT_BLUR,
            dataset_index=asked.dataset_index,
            flip_test=asked.flip_test,
            max_batch=pose_batch,
            allow_pickle=asked.allow_pickle,
        )
        if asked.compile or asked.warm_up:
            _compile(people, estimator, waits=asked.warm_up)
        annotator = Annotator(
            estimator.skeleton,
            style=asked.style,
            min_score=asked.keypoint_threshold,
            boxes=asked.boxes,
            labels=asked.labels,
            colour_by=asked.colour_by,
        )
        feeds = []
        for origin, of_origin in zip(origins, sinks, strict=True):
            is_tracked = asked.track and not origin.info.pictures
            tracker = Tracker(estimator.skeleton, remember_s=asked.remember_s) if is_tracked else None
            feeds.append(Feed(origin, of_origin, tracker))
        pipeline = Pipeline(
            feeds,
            people,
            estimator,
            annotator,
            device=where,
            detect_every=asked.detect_every,
            max_people=asked.max_people,
            detect_batch=detect_batch,
            pose_batch=pose_batch,
            draw=draw,
            results_wanted=results_wanted,
            stall_after_s=asked.stall_after_s,
        )
        opened.pop_all()
    return pipeline


def _compile(*networks: PersonDetector | PoseEstimator, waits: bool) -> None:
    if any(network.device.type == "cpu" for network in networks):
        log.info("nothing is compiled on a CPU: the networks run as fast as they are")
        return
    for network in networks:
        network.compile(waits=waits)


def _listed(values: Any, kind: type | UnionType) -> list[Any]:
    """Return values as a list. One text, path or `kind` becomes a list of one; None becomes an empty list."""
    if values is None:
        return []
    return [values] if isinstance(values, str | os.PathLike | int | kind) else list(values)
