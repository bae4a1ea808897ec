"""Splits a batch among worker threads on a CPU. Each worker runs the network on its part of the batch.

By default, torch runs one operation at a time on all cores. After each operation, hundreds of times per forward pass,
all cores wait for the slowest one. If another thread occupies a core, all other cores wait for that core. Workers wait
for each other only once per batch. Milliseconds per crop, torch's default against workers, measured alternately on
2 cores in bfloat16 with 16 crops: 8.1 against 8.0 on an idle machine; 37 against 14 next to a thread that resizes
images.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from streampose.networks.pending import Pending, Ready

Part = TypeVar("Part")
Found = TypeVar("Found")

_NAME = "torch worker"
MOST_WORKERS = 8
"""Maximum number of workers. Every operation briefly takes the interpreter lock, so more workers would block each
other. With more cores than this, each worker uses several cores.
"""
MOST_AT_ONCE = 8
"""Maximum inputs per network call of a worker. Larger calls are no faster, and their activations exceed the cache."""


def spread(work: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Return `work(batch)`, computed in parts on the workers.

    The batch is split, and the results are joined, along the first dimension, which must be at least 1. Errors of
    `work` propagate.
    """
    if _is_worker():
        return work(batch)
    sizes = part_sizes(len(batch))
    found = each(work, torch.split(batch, sizes))
    return found[0] if len(found) == 1 else torch.cat(found)


def part_sizes(count: int) -> list[int]:
    """Return the sizes of the parts into which `count` inputs (at least 1) are split."""
    parts = max(min(worker_count(), count), -(-count // MOST_AT_ONCE))
    return [count // parts + (number < count % parts) for number in range(parts)]


def each(work: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found]:
    """Run `work` on every part, on the workers and without gradients; return the results in order.

    If called on a worker, it runs all parts in that worker. The error of the first part that fails propagates.
    """
    return [begun.result() for begun in begin(work, parts)]


def begin(work: Callable[[Part], Found], parts: Sequence[Part]) -> Sequence[Pending[Found]]:
    """Start `each` and return a handle for each part."""
    if _is_worker():
        return [Ready(work(part)) for part in parts]
    pool = _workers().pool
    return [pool.submit(_without_gradients, work, part) for part in parts]


def worker_count() -> int:
    """Return the number of workers, which is the number of parts that run in parallel."""
    return _workers().number


def _without_gradients(work: Callable[[Part], Found], part: Part) -> Found:
    with torch.inference_mode():  # inference mode is per thread
        return work(part)


def _is_worker() -> bool:
    return threading.current_thread().name.startswith(_NAME)


@contextmanager
def all_cores() -> Iterator[None]:
    """Within the block, let torch operations in the calling thread use as many cores as all workers together."""
    before = torch.get_num_threads()
    use_cores(_workers().cores)
    try:
        yield
    finally:
        use_cores(before)


def use_cores(count: int) -> None:
    """Let torch operations in the calling thread use `count` CPU cores, without affecting other threads."""
    with _one_at_a_time:
        others = _in_a_new_thread(torch.get_num_threads)
        torch.get_num_threads()  # a thread inherits the global number once, with its first torch call
        torch.set_num_threads(count)
        # The number is per thread, but new threads inherit the number that any thread set last. Restore it.
        _in_a_new_thread(lambda: torch.set_num_threads(others))


_one_at_a_time = threading.Lock()


def _in_a_new_thread(work: Callable[[], Found]) -> Found:
    found: list[Found] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


class _Workers(NamedTuple):
    pool: ThreadPoolExecutor
    number: int
    cores: int
    """Number of cores of all workers together."""


@cache
def _workers() -> _Workers:
    cores = _in_a_new_thread(torch.get_num_threads)  # the calling thread may be limited to fewer
    count = min(cores, MOST_WORKERS)
    pool = ThreadPoolExecutor(count, _NAME, lambda: use_cores(max(1, cores // count)))
    return _Workers(pool, count, cores)
