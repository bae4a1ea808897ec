"""Runs a network's forward pass on a device: on CPU workers, directly, from capture graphs, or compiled.

Knows nothing about what is computed. On CUDA, a small network spends most of its time launching operations one by one.
A capture graph (CUDA graph) reduces the forward pass to one launch. Each capture graph works for one batch size, so
batches are padded to one of a few sizes. Compilation is optional and for accelerators only (vitpose.py explains why not
for CPUs). Until the program for a size is ready, or if it cannot be built, batches run directly.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from streampose.errors import describe
from streampose.networks.workers import spread

log = logging.getLogger("streampose")

Work = Callable[[Tensor], Tensor]

SIZES = (1, 2, 4, 8, 16, 32, 48, 64)
"""Batches are padded to one of these sizes; larger ones are padded to a multiple of the last."""
CAPTURED_FROM = 2
"""A size is captured when it occurs for the second time: in a folder of stills, many sizes occur only once."""
MAX_GRAPHS = 32
"""Maximum number of capture graphs. Each one keeps the memory of its activations."""
_COMPILED_SIZES = 64
"""Maximum number of programs that torch's compiler keeps per function. Its default of 8 is shared by both networks."""


class CapturedGraph(Protocol):
    """A captured forward pass for one batch size."""

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the outputs for `batch`, which must not exceed the captured size."""


class Capture(Protocol):
    """Captures `work` for batches of up to `shape[0]`."""

    def __call__(self, work: Work, shape: Sequence[int], like: Tensor) -> CapturedGraph: ...


def size_for(count: int) -> int:
    """Return the size to which a batch of `count` inputs (at least 1) is padded."""
    fitting = next((size for size in SIZES if size >= count), None)
    return fitting or -(-count // SIZES[-1]) * SIZES[-1]


class Engine:
    """Runs `work` on the device of its input. `work` maps a batch to a batch along the first dimension.

    Not thread-safe: call it from one thread at a time.
    """

    def __init__(self, work: Work, *, tables: Callable[[], Sequence[Tensor]], capture: Capture | None = None) -> None:
        """Store the forward pass and the way to capture it.

        Args:
            work: the forward pass.
            tables: returns the tensors that `work` keeps between calls. A capture graph keeps them alive, because it
                reads them.
            capture: creates capture graphs; by default CUDA graphs, for inputs on CUDA only.
        """
        self._work = work
        self._tables = tables
        self._capture = capture
        self._graphs: dict[tuple[object, ...], tuple[CapturedGraph, Sequence[Tensor]]] = {}
        self._calls: dict[tuple[object, ...], int] = {}
        self._compiler: _Compiler | None = None

    def compile(self, *, waits: bool, build: Callable[[Work], Work] | None = None) -> None:
        """Enable compilation. A background thread compiles a program for each size that occurs.

        Args:
            waits: whether the first batch of a size waits for its program.
            build: returns a version of the work that compiles itself when it first sees a size; by default
                `torch.compile`.
        """
        self._compiler = _Compiler(self._work, build or _compiling, waits=waits)

    def __call__(self, batch: Tensor) -> Tensor:
        """Return `work(batch)`; `batch` has at least one entry."""
        capture = self._capture or (_CudaGraph if batch.device.type == "cuda" else None)
        if self._compiler is None and capture is None:
            return spread(self._work, batch) if batch.device.type == "cpu" else self._work(batch)
        shape = (size_for(len(batch)), *batch.shape[1:])
        compiled = None if self._compiler is None else self._compiler.program(shape, batch)
        if capture is not None:
            graph = self._graph(capture, compiled or self._work, shape, batch)
            if graph is not None:
                return graph(batch)
        return self._work(batch) if compiled is None else compiled(_filled(batch, shape[0]))[: len(batch)]

    def _graph(self, capture: Capture, work: Work, shape: Sequence[int], batch: Tensor) -> CapturedGraph | None:
        key = (work, batch.device, *shape)
        known = self._graphs.get(key)
        if known is not None:
            return known[0]
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] < CAPTURED_FROM or len(self._graphs) >= MAX_GRAPHS:
            return None
        try:
            with _capturing_now:
                graph = capture(work, shape, batch)
        except RuntimeError as error:
            log.warning("cannot capture batches of %d, running them directly: %s", shape[0], describe(error))
            self._calls[key] = -(2**62)  # never try this size again
            return None
        self._graphs[key] = graph, self._tables()
        return graph


_capturing_now = threading.Lock()
"""CUDA captures the work of a thread. This lock ensures that only one thread captures at a time."""


def _filled(batch: Tensor, size: int) -> Tensor:
    if len(batch) == size:
        return batch
    filled = batch.new_zeros(size, *batch.shape[1:])
    filled[: len(batch)] = batch
    return filled


def new_stream(device: torch.device) -> torch.cuda.Stream:
    """Return a new stream of a CUDA device."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _CudaGraph:
    """A capture graph with its input and output memory."""

    def __init__(self, work: Work, shape: Sequence[int], like: Tensor) -> None:
        self._inputs = like.new_zeros(shape)
        current, aside = torch.cuda.current_stream(like.device), new_stream(like.device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(3):  # warm-up: libraries select kernels and allocate memory, which cannot be captured
                work(self._inputs)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads keep working on other streams during the capture.
            with torch.cuda.graph(self._graph, stream=aside, capture_error_mode="thread_local"):
                self._outputs = work(self._inputs)
        current.wait_stream(aside)

    def __call__(self, batch: Tensor) -> Tensor:
        self._inputs[: len(batch)].copy_(batch)
        self._graph.replay()
        return self._outputs[: len(batch)].clone()  # the next replay overwrites the outputs


class _Compiler:
    """Compiles programs for given input shapes with torch's compiler, one at a time in a background thread.

    torch caches compiled programs on disk, so the next run loads them in seconds. A compilation cannot be interrupted;
    the thread is a daemon and ends with the process.
    """

    def __init__(self, work: Work, build: Callable[[Work], Work], *, waits: bool) -> None:
        self._work = work
        self._build = build
        self._waits = waits
        self._ready: dict[tuple[object, ...], threading.Event] = {}
        self._program: Work | None = None
        self._failed = False
        self._wanted: queue.SimpleQueue[tuple[Tensor, threading.Event]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="torch compiler", daemon=True).start()

    def program(self, shape: Sequence[int], like: Tensor) -> Work | None:
        """Return the program for inputs of `shape`, or None if it is not available (yet)."""
        if self._failed:
            return None
        key = (like.device, *shape)
        if key not in self._ready:
            self._ready[key] = threading.Event()
            self._wanted.put((like.new_zeros(shape), self._ready[key]))
        if self._waits:
            self._ready[key].wait()
        return self._program if self._ready[key].is_set() and not self._failed else None

    def _run(self) -> None:
        program: Work | None = None
        while True:
            inputs, ready = self._wanted.get()
            try:
                if not self._failed:
                    program = program or self._build(self._work)
                    with torch.inference_mode():
                        program(inputs)
                    self._program = program
            except Exception as error:  # a compiler, or a missing one, can raise anything
                self._failed = True
                log.warning("cannot compile the networks, running them uncompiled: %s", describe(error)[:200])
            finally:
                ready.set()


def _compiling(work: Work) -> Work:
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _COMPILED_SIZES)
    return torch.compile(work, dynamic=False)
