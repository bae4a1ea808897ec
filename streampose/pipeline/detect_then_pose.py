"""Runs the detector and the pose network in separate threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from streampose.channel import Channel, Closed, Empty, Ending, Finished, Merge
from streampose.frames import Captured, Detected, Result
from streampose.pipeline.lane import CHANNEL_DEPTH, Lane
from streampose.pipeline.networks import BATCH_FRAMES, Batch, Networks, sorted_out
from streampose.pipeline.pace import Pace


class DetectThenPose:
    """One thread per network: the detector runs on the next batch while the pose network runs on the current one."""

    def __init__(
        self,
        networks: Networks,
        lanes: Mapping[int, Lane],
        captured: Merge[Captured],
        stop_asked: threading.Event,
        *,
        detect_batch: int,
        pose_batch: int,
        fill_s: float,
    ) -> None:
        """Store the settings. Both networks serve all `lanes`.

        Args:
            lanes: the lanes by number. If `captured` stays open, lanes may come and go.
            captured: the frames of all lanes, by lane number.
            stop_asked: set when the run must stop; no new batch starts then.
            detect_batch: maximum frames per detector call.
            pose_batch: maximum people per pose call.
            fill_s: maximum time that a batch waits to be filled.
        """
        self._networks = networks
        self._lanes = lanes
        self._captured = captured
        self._stop_asked = stop_asked
        self._detect_batch = detect_batch
        self._pose_batch = pose_batch
        self._fill_s = fill_s
        self._any_live = any(lane.source.info.is_live for lane in lanes.values())
        self._detected: Channel[tuple[Lane, Detected | Ending]] = Channel(CHANNEL_DEPTH)
        self._pace = Pace(detections_beside_poses=1.1 if networks.run_side_by_side else 0.0)

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Return the names and functions of the threads. Each runs until its input ends and passes the ending on."""
        return [("detect", self._run_detect), ("pose", self._run_pose)]

    def close(self) -> None:
        """Discard the frames that wait between the two networks."""
        self._detected.close()

    def _run_detect(self) -> None:
        failure: BaseException | None = None
        try:
            while True:
                self._detect_next()
        except (Finished, Closed):
            pass
        except BaseException as error:
            failure = error
        finally:
            for lane in tuple(self._lanes.values()):
                lane.slot.close()
            self._detected.finish(failure)

    def _detect_next(self) -> None:
        most_each = None
        if self._any_live:
            # Start detection as late as possible, so that it gets the newest frame. Limit recordings to one frame per
            # batch, so that a live frame never waits for many others.
            self._detected.wait_until_empty()
            self._stop_asked.wait(self._pace.wait_s(time.monotonic()))
            most_each = 1
        arrived = self._captured.take_batch(self._detect_batch, most_each=most_each, fill_s=self._fill_s)
        frames, endings = sorted_out(self._lanes, arrived)
        with self._pace.detecting():
            Batch(self._networks.meter, "detect", frames, self._networks.detect, self._put_detected).result()
        for lane, ending in endings:
            self._detected.put((lane, ending))

    def _put_detected(self, lane: Lane, detected: Detected) -> None:
        self._pace.handing_over()
        self._detected.put((lane, detected))

    def _run_pose(self) -> None:
        failure: BaseException | None = None
        begun: _Posing | None = None
        try:
            while True:
                items = self._take_detected(timeout_s=None if begun is None else 0.0)
                with self._pace.posing():
                    # Start this batch before waiting for the previous one, so that the network never idles.
                    before = begun
                    begun = self._begin_poses(items) if items else None
                    if before is not None:
                        before.result()
                    if self._any_live and begun is not None:  # a live frame is passed on at once
                        begun.result()
                        begun = None
        except (Finished, Closed):
            pass
        except BaseException as error:
            failure = error
        finally:
            try:
                if begun is not None:
                    begun.result()
            except BaseException as error:
                failure = failure or error
            self._detected.close()
            for lane in tuple(self._lanes.values()):
                lane.posed.finish(failure)

    def _take_detected(self, timeout_s: float | None) -> list[tuple[Lane, Detected | Ending]]:
        """Return the items of a pose batch; an empty list if nothing arrives within `timeout_s`."""
        with suppress(Empty):
            return self._detected.take_batch(
                self._pose_batch,
                weigh=lambda item: 0 if isinstance(item[1], Ending) else len(item[1].boxes),
                most=BATCH_FRAMES,
                fill_s=self._fill_s,
                is_last=lambda item: isinstance(item[1], Ending) and self._captured.is_idle,
                timeout_s=timeout_s,
            )
        return []

    def _begin_poses(self, items: Sequence[tuple[Lane, Detected | Ending]]) -> _Posing:
        frames = [(lane, value) for lane, value in items if isinstance(value, Detected)]
        if self._stop_asked.is_set():  # frames that have not started count as dropped
            frames = []
        endings = [(lane, value) for lane, value in items if isinstance(value, Ending)]
        begin = self._networks.begin_estimate
        return _Posing(Batch(self._networks.meter, "pose", frames, begin, Lane.hand_on), endings)


@dataclass(frozen=True, slots=True)
class _Posing:
    """A pose batch in progress and the source endings that follow it."""

    batch: Batch[Detected, Result]
    endings: Sequence[tuple[Lane, Ending]]

    def result(self) -> None:
        """Wait for the poses and pass them on, then the endings."""
        self.batch.result()
        for lane, ending in self.endings:
            lane.posed.finish(ending.error)
