"""A run whose people are found by the two networks.

    capture -> detect -> [detected] -> pose -> annotate

`streampose.pipeline.run` describes the other steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from streampose.pipeline.detect_and_follow import DetectAndFollow
from streampose.pipeline.detect_then_pose import DetectThenPose
from streampose.pipeline.networks import Networks, on_device
from streampose.pipeline.parts import Detector, Drawer, Feed, Finder, Pose
from streampose.pipeline.run import Run


class Pipeline(Run):
    """Runs sources through the networks into their sinks. See `Run`."""

    def __init__(
        self,
        feeds: Sequence[Feed],
        detector: Detector,
        pose: Pose,
        annotator: Drawer | None,
        *,
        device: torch.device | None = None,
        detect_every: int | Literal["auto"] = 1,
        max_people: int | None = None,
        detect_batch: int = 4,
        pose_batch: int = 16,
        fill_s: float = 1.0,
        draw: bool = False,
        results_wanted: bool = True,
        stall_after_s: float = 300.0,
        join_within_s: float = 30.0,
        stays_open: bool = False,
    ) -> None:
        """Take ownership of sources and sinks. Work starts with the iteration.

        Args:
            feeds, annotator, draw, results_wanted, stall_after_s, join_within_s, stays_open: see `Run`.
            device: device of the networks. The pixels of each frame are uploaded once.
            detect_every: run the detector only on every Nth frame of a source and follow people in between; `auto` runs
                it as often as the pose network leaves time. On stills, the detector runs on each.
            max_people: maximum people per frame while people are followed; the detector applies its own limit.
            detect_batch: maximum frames per detector call, over all sources.
            pose_batch: maximum people per pose call, over all sources.
            fill_s: maximum time that a batch waits to be filled if all sources are recorded; otherwise it never waits.
        """
        super().__init__(
            feeds,
            pose.skeleton,
            {"detector": detector.name, "pose": pose.name},
            annotator,
            draw=draw,
            results_wanted=results_wanted,
            stall_after_s=stall_after_s,
            join_within_s=join_within_s,
            stays_open=stays_open,
        )
        device = device or torch.device("cpu")
        networks = Networks(detector, pose, device, self.meter)
        finder: Finder
        if detect_every != 1 and (stays_open or not all(feed.source.info.stills for feed in feeds)):
            finder = DetectAndFollow(
                networks,
                self._lanes,
                self._captured,
                self._stop_asked,
                detect_every=detect_every,
                detect_batch=detect_batch,
                max_people=max_people,
            )
        else:
            finder = DetectThenPose(
                networks,
                self._lanes,
                self._captured,
                self._stop_asked,
                detect_batch=detect_batch,
                pose_batch=pose_batch,
                fill_s=0.0 if any(feed.source.info.is_live for feed in feeds) else fill_s,
            )
        self._finder = _OnDevice(finder, device)


class _OnDevice:
    """A finder whose threads have the torch settings for a network; see `on_device`."""

    def __init__(self, finder: Finder, device: torch.device) -> None:
        self._finder = finder
        self._device = device

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [(name, on_device(self._device, run)) for name, run in self._finder.steps()]

    def close(self) -> None:
        self._finder.close()
