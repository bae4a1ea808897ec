"""What the sources of a run share: the networks, the annotator, and the way in which a source becomes a feed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from streampose.api import OF_NETWORKS, annotator_of
from streampose.drawing.faces import FaceBlur
from streampose.networks.pair import load_pair
from streampose.people.only import Only
from streampose.people.smooth import Smoother
from streampose.people.track import Tracker
from streampose.pipeline.parts import Feed, Step
from streampose.pipeline.pipeline import Pipeline
from streampose.pipeline.recalled import Lookup, RecalledRun
from streampose.pipeline.rolling import RollingPipeline
from streampose.sinks.controls import Controls
from streampose.sinks.sink import Sink
from streampose.sources.source import Source

log = logging.getLogger("streampose")


class Assembly:
    """The loaded networks and the annotator of a run. Makes a feed of each source, and a pipeline of the feeds."""

    def __init__(self, asked: SimpleNamespace) -> None:
        """Load the networks. Raises `UsageError` and `ModelError`.

        Args:
            asked: the checked options of `streampose.stream`.
        """
        self._asked = asked
        self.networks = load_pair(**{name: getattr(asked, name) for name in OF_NETWORKS})
        estimator = self.networks.pose
        if asked.ellipses and estimator.calibration is None:
            log.info("%s has no calibration: ellipses show the spread of the heatmaps", estimator.name)
        self.annotator = annotator_of(estimator.skeleton, asked)

    def feed(self, origin: Source, sinks: Sequence[Sink]) -> Feed:
        """Return the source and its sinks with a tracker and steps of their own."""
        asked, estimator = self._asked, self.networks.pose
        is_tracked = asked.track and not origin.info.stills
        tracker = Tracker(estimator.skeleton, remember_s=asked.remember_s) if is_tracked else None
        only = Only(asked.only, remember_s=asked.remember_s)
        steps: list[Step] = [only]
        if asked.blur is not None:
            steps.insert(0, FaceBlur(estimator.skeleton, stills=bool(origin.info.stills)))
        if is_tracked and asked.smooth != "off":
            steps.append(Smoother(estimator.keypoint_count, replaces=asked.smooth == "data"))
        for sink in sinks:
            sink.take_controls(Controls(self.annotator, only))
        return Feed(origin, sinks, tracker, steps)

    def identity(self) -> dict[str, str]:
        """Return what tells the networks from others, with the words for a message."""
        networks = self.networks
        return {
            "detector": networks.detector.name,
            "pose network": networks.pose.name,
            "number format": str(networks.dtype).removeprefix("torch."),
            "kind of device": networks.device.type,
        }

    def pipeline(self, feeds: Sequence[Feed], *, draw: bool, results_wanted: bool) -> Pipeline:
        """Return a pipeline that takes ownership of the sources and sinks of the feeds. See `Pipeline`."""
        parts = self.networks.detector, self.networks.pose, self.annotator
        return Pipeline(feeds, *parts, draw=draw, results_wanted=results_wanted, **self._of_pipeline())

    def rolling_pipeline(self) -> RollingPipeline:
        """Return a pipeline to which recordings are added while it runs."""
        parts = self.networks.detector, self.networks.pose, self.annotator
        return RollingPipeline(*parts, **self._of_pipeline())

    def _of_pipeline(self) -> dict[str, Any]:
        asked, networks = self._asked, self.networks
        return {
            "device": networks.device,
            "detect_every": asked.detect_every,
            "max_people": asked.max_people,
            "detect_batch": networks.detect_batch,
            "pose_batch": networks.pose_batch,
            "stall_after_s": asked.stall_after_s,
        }

    def recalled_run(self, feed: Feed, lookup: Lookup) -> RecalledRun:
        """Return a run that takes ownership of the feed, and whose raw people are looked up. See `RecalledRun`."""
        networks = self.networks
        return RecalledRun(
            feed,
            lookup,
            networks.pose.skeleton,
            {"detector": networks.detector.name, "pose": networks.pose.name},
            self.annotator,
            results_wanted=False,
            stall_after_s=self._asked.stall_after_s,
        )
