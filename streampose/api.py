"""The main job from Python: texts and numbers to a running pipeline. Knows every part, does nothing itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from streampose.errors import UsageError
from streampose.models import DEFAULT_DETECTOR, DEFAULT_POSE
from streampose.sinks import Sink

if TYPE_CHECKING:
    from streampose.annotate import Style
    from streampose.geometry import Blur
    from streampose.pipeline import Pipeline

DEFAULT_KEYPOINT_THRESHOLD = 0.3


def stream(
    source: str | os.PathLike[str],
    *,
    to: Iterable[str | os.PathLike[str] | Sink] = (),
    overwrite: bool = False,
    pose: str = DEFAULT_POSE,
    detector: str = DEFAULT_DETECTOR,
    classes: Sequence[str] | None = None,
    dataset_index: int | None = None,
    allow_pickle: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    box_threshold: float | None = None,
    max_people: int | None = None,
    flip_test: bool = False,
    blur: Blur | None = None,
    detect_batch: int | None = None,
    pose_batch: int | None = None,
    keypoint_threshold: float = DEFAULT_KEYPOINT_THRESHOLD,
    style: Style = "lines",
    boxes: bool = False,
    labels: bool = False,
    draw: bool = False,
    results_wanted: bool = True,
    stall_after_s: float = 300.0,
) -> Pipeline:
    """Find the people of a source and their poses, frame after frame.

        for result in streampose.stream("clip.mp4"):
            print(result.frame.pts_s, result.people.keypoints_xy)

    Sinks and source are opened and the networks loaded before this returns; the work begins with the iteration. The
    returned pipeline is also a context manager: use it as one when the loop may be left early.

    Args:
        source: a video file, a picture, a folder or glob of pictures, or `demo`.
        to: sinks, as texts (see `streampose.sinks.open.open_sink`) or objects.
        overwrite: let sinks replace existing files.
        pose: ViTPose checkpoint: a bundled name, a hub id or a local folder in hub layout.
        detector: detector checkpoint, named likewise.
        classes: names (or numbers) of the detector's classes to take; None takes people.
        dataset_index: the expert of a mixture-of-experts (`plus`) checkpoint; None takes its first.
        allow_pickle: read weights that are no safetensors; such files can run code when they are loaded.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, `xpu`.
        dtype: `auto`, `float32`, `bfloat16`, `float16`.
        box_threshold: least box score, 0..1; None takes the detector's own default.
        max_people: most people a frame, the best boxes first; None takes all.
        flip_test: average the heatmaps with those of the mirrored crops: a little better, twice the work.
        blur: `hf` or `paper`, the Gaussian before the sub-pixel step; None takes the one that measures better.
        detect_batch: most frames a detector call; None takes the device's default.
        pose_batch: most people a pose call; None takes the device's default.
        keypoint_threshold: least score of a drawn keypoint; data always holds all.
        style: `lines` or `weighted`.
        boxes: draw the boxes.
        labels: draw a label at each box.
        draw: give every result its drawn picture, even when no sink needs one.
        results_wanted: whether the caller's loop is itself a reason to go on when every sink has failed.
        stall_after_s: a step at one piece of work for longer ends the run.

    Raises:
        UsageError: a value that cannot be right.
        SourceError, ModelError, SinkError: what cannot be opened; the same and `AnnotateError`, `StalledError` later
            from the iteration, behind every result that came before the failure.
    """
    from streampose.sinks.open import open_sink
    from streampose.sources import open_source

    to = list(to)
    texts = [os.path.normpath(sink) for sink in to if not isinstance(sink, Sink)]
    if twice := {text for text in texts if texts.count(text) > 1}:
        raise UsageError(f"two sinks would write to {min(twice)}: name each only once")
    with ExitStack() as opened:
        origin = opened.enter_context(open_source(source))
        sinks = [
            opened.enter_context(
                sink if isinstance(sink, Sink) else open_sink(sink, overwrite=overwrite, source_path=origin.info.path)
            )
            for sink in to
        ]
        # Behind the cheap checks, because these imports take seconds.
        from streampose.annotate import Annotator
        from streampose.detect import load_detector
        from streampose.device import pick_device, pick_dtype
        from streampose.pipeline import Feed, Pipeline
        from streampose.pose import DEFAULT_BLUR, PoseEstimator

        where = pick_device(device)
        precision = pick_dtype(dtype, where)
        on_cpu = where.type == "cpu"
        detect_batch = detect_batch or (4 if on_cpu else 8)
        pose_batch = pose_batch or (16 if on_cpu else 64)
        people = load_detector(
            detector,
            device=where,
            dtype=precision,
            threshold=box_threshold,
            classes=classes,
            max_people=max_people,
            max_batch=detect_batch,
            allow_pickle=allow_pickle,
        )
        estimator = PoseEstimator(
            pose,
            device=where,
            dtype=precision,
            blur=blur or DEFAULT_BLUR,
            dataset_index=dataset_index,
            flip_test=flip_test,
            max_batch=pose_batch,
            allow_pickle=allow_pickle,
        )
        annotator = Annotator(estimator.skeleton, style=style, min_score=keypoint_threshold, boxes=boxes, labels=labels)
        pipeline = Pipeline(
            [Feed(origin, sinks)],
            people,
            estimator,
            annotator,
            device=where,
            detect_batch=detect_batch,
            pose_batch=pose_batch,
            draw=draw,
            results_wanted=results_wanted,
            stall_after_s=stall_after_s,
        )
        opened.pop_all()
    return pipeline
