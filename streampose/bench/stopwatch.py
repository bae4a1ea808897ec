"""Times of steps that are repeated: by the clock and of the processor."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

WARM_UP = 1
"""Repetitions that do not count: a size of batch is slower the first time."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds a frame by stage."""

    wall_s: dict[str, float]
    """As the clock goes, on all cores."""
    cpu_s: dict[str, float]
    """Of the processor, over all cores."""

    def __add__(self, others: Costs) -> Costs:
        """Those of other stages as well."""
        return Costs(self.wall_s | others.wall_s, self.cpu_s | others.cpu_s)


class Stopwatch:
    """Times of steps, each of which is done again and again: by the clock and of the processor."""

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
        """Seconds that a step has taken so far, but for the first time."""
        return sum(self._wall_s.get((stage, step), [])[WARM_UP:])

    def costs(self, frames: int) -> Costs:
        """Return what the stages take for each of so many frames: by the clock the median of the repetitions, of the
        processor the least, to which what else the machine does only adds.
        """
        wall_s: dict[str, float] = {}
        cpu_s: dict[str, float] = {}
        for (stage, step), times in self._wall_s.items():
            wall_s[stage] = wall_s.get(stage, 0.0) + float(np.median(times[WARM_UP:])) / frames
            cpu_s[stage] = cpu_s.get(stage, 0.0) + min(self._cpu_s[stage, step][WARM_UP:]) / frames
        return Costs(wall_s, cpu_s)


def finish(device: torch.device) -> None:
    """Wait for everything that was asked of `device`."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
