"""Measures the wall-clock time and CPU time of repeated steps."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

WARM_UP = 1
"""Number of initial repetitions to ignore: the first call with a batch size is slower."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds per frame, by stage."""

    wall_s: dict[str, float]
    """Wall-clock time, using all cores."""
    cpu_s: dict[str, float]
    """CPU time, summed over all cores."""

    def __add__(self, others: Costs) -> Costs:
        """Return the costs of the stages of both."""
        return Costs(self.wall_s | others.wall_s, self.cpu_s | others.cpu_s)


class Stopwatch:
    """Records the wall-clock time and CPU time of repeated steps."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._wall_s: dict[tuple[str, Hashable], list[float]] = {}
        self._cpu_s: dict[tuple[str, Hashable], list[float]] = {}

    @contextmanager
    def __call__(self, stage: str, step: Hashable = 0) -> Iterator[None]:
        """Time the block as `step` of a stage."""
        finish(self._device)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        yield
        finish(self._device)
        self._cpu_s.setdefault((stage, step), []).append(time.process_time() - cpu_s)
        self._wall_s.setdefault((stage, step), []).append(time.perf_counter() - wall_s)

    def spent_s(self, stage: str, step: Hashable) -> float:
        """Return the total wall-clock seconds of a step so far, without the warm-up."""
        return sum(self._wall_s.get((stage, step), [])[WARM_UP:])

    def costs(self, frames: int) -> Costs:
        """Return the costs of the stages per frame, for a measurement over `frames` frames.

        Wall-clock time is the median of the repetitions. CPU time is the minimum, because other load on the machine can
        only increase it.
        """
        wall_s: dict[str, float] = {}
        cpu_s: dict[str, float] = {}
        for (stage, step), times in self._wall_s.items():
            wall_s[stage] = wall_s.get(stage, 0.0) + float(np.median(times[WARM_UP:])) / frames
            cpu_s[stage] = cpu_s.get(stage, 0.0) + min(self._cpu_s[stage, step][WARM_UP:]) / frames
        return Costs(wall_s, cpu_s)


def finish(device: torch.device) -> None:
    """Wait until `device` has finished all queued work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
