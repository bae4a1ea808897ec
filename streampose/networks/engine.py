"""How a network's forward pass runs on a device: on the cores of a CPU, as it is, from capture graphs, compiled.

Knows nothing of what is computed. On CUDA a small network spends most of its time launching one operation after the
other; captured as a CUDA graph, the pass is one launch. A capture graph serves one batch size, so batches are filled up
to one of a few sizes. Compiling is for accelerators, on request (vitpose.py says why not for CPUs). A batch runs as it
is until the program for its size is ready, and where none can be made.
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
"""Batches are filled up to one of these; larger ones to a multiple of the last."""
CAPTURED_FROM = 2
"""A size that comes for the second time is captured: a folder of pictures has many that never come again."""
MAX_GRAPHS = 32
"""Each keeps its activations' memory."""
_COMPILED_SIZES = 64
"""How many programs torch's compiler may keep for one function; by default 8, for both networks together."""


class CapturedGraph(Protocol):
    """One batch size's forward pass, captured."""

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the outputs for `batch`, which has at most the captured size."""


class Capture(Protocol):
    """Captures `work` for batches of up to `shape[0]`."""

    def __call__(self, work: Work, shape: Sequence[int], like: Tensor) -> CapturedGraph: ...


def size_for(count: int) -> int:
    """Return the size that a batch of `count`, from 1 on, is filled up to."""
    fitting = next((size for size in SIZES if size >= count), None)
    return fitting or -(-count // SIZES[-1]) * SIZES[-1]


class Engine:
    """Runs `work`, which takes and returns tensors by their first dimension, on whatever device its input is on.

    Called from one thread at a time.
    """

    def __init__(self, work: Work, *, tables: Callable[[], Sequence[Tensor]], capture: Capture | None = None) -> None:
        """Run `work` as it is, or as its device wants it.

        Args:
            work: the forward pass.
            tables: tensors that `work` keeps between calls; a capture graph keeps those that it reads.
            capture: makes capture graphs; by default CUDA's, for inputs on CUDA only.
        """
        self._work = work
        self._tables = tables
        self._capture = capture
        self._graphs: dict[tuple[object, ...], tuple[CapturedGraph, Sequence[Tensor]]] = {}
        self._calls: dict[tuple[object, ...], int] = {}
        self._compiler: _Compiler | None = None

    def compile(self, *, waits: bool, build: Callable[[Work], Work] | None = None) -> None:
        """Have programs compiled for the sizes that come, off the calling thread.

        Args:
            waits: the first batch of a size waits for its program.
            build: returns the work as a program that compiles itself when it is first given a size; by default torch's.
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
            log.warning("batches of %d run as they are: they cannot be captured: %s", shape[0], describe(error))
            self._calls[key] = -(2**62)  # not to be tried again
            return None
        self._graphs[key] = graph, self._tables()
        return graph


_capturing_now = threading.Lock()
"""CUDA captures what a thread does; two threads never capture at the same time."""


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
    """A CUDA graph with the memory that it reads from and writes to."""

    def __init__(self, work: Work, shape: Sequence[int], like: Tensor) -> None:
        self._inputs = like.new_zeros(shape)
        current, aside = torch.cuda.current_stream(like.device), new_stream(like.device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(3):  # libraries choose their kernels and take their memory, which cannot be captured
                work(self._inputs)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads go on meanwhile, on other streams.
            with torch.cuda.graph(self._graph, stream=aside, capture_error_mode="thread_local"):
                self._outputs = work(self._inputs)
        current.wait_stream(aside)

    def __call__(self, batch: Tensor) -> Tensor:
        self._inputs[: len(batch)].copy_(batch)
        self._graph.replay()
        return self._outputs[: len(batch)].clone()  # the next replay writes there


class _Compiler:
    """Programs of torch's compiler for inputs of given shapes, made in a thread of their own, one after the other.

    torch keeps what it compiles on disk, so the next run has it in seconds. The thread ends with the process: nothing
    can interrupt a compilation.
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
        """Return the program for inputs of `shape`; None as long as there is none."""
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
            except Exception as error:  # whatever a compiler, or the lack of one, may raise
                self._failed = True
                log.warning("the networks run as they are: they cannot be compiled here: %s", describe(error)[:200])
            finally:
                ready.set()


def _compiling(work: Work) -> Work:
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _COMPILED_SIZES)
    return torch.compile(work, dynamic=False)
