"""The ways to run a forward pass; what is captured is captured by a twin of CUDA's graphs that works on a CPU."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from streampose.networks.engine import CAPTURED_FROM, SIZES, Engine, Work, size_for
from streampose.networks.vitpose import DenseMapNetwork
from streampose.networks.workers import MOST_AT_ONCE, all_cores, each, spread, use_cores, worker_count
from tests.player import wait_until
from tests.tiny import vitpose

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
torch_warns = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
"""Of itself, while its compiler is imported."""


def doubled(batch: Tensor) -> Tensor:
    return batch * 2.0


def batch_of(count: int, first: float = 1.0) -> Tensor:
    return torch.arange(first, first + count)[:, None].repeat(1, 3)


class Twin:
    """What a CUDA graph is: reads from and writes to memory of its own, whatever the size of the batch."""

    def __init__(self, work: Work, shape: Sequence[int], like: Tensor) -> None:
        self.work = work
        self.inputs = like.new_zeros(shape)
        self.outputs = work(self.inputs)

    def __call__(self, batch: Tensor) -> Tensor:
        self.inputs[: len(batch)].copy_(batch)
        self.outputs.copy_(self.work(self.inputs))
        return self.outputs[: len(batch)].clone()


def capturing(work: Work, *, fails: bool = False) -> tuple[Engine, list[tuple[int, ...]]]:
    made: list[tuple[int, ...]] = []

    def capture(work: Work, shape: Sequence[int], like: Tensor) -> Twin:
        made.append(tuple(shape))
        if fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        return Twin(work, shape, like)

    return Engine(work, tables=list, capture=capture), made


@pytest.mark.parametrize(("count", "size"), [(1, 1), (3, 4), (17, 32), (33, 48), (64, 64), (65, 128), (129, 192)])
def test_batches_are_filled_up(count: int, size: int) -> None:
    assert size_for(count) == size


def test_capture_graphs_give_what_the_work_gives() -> None:
    engine, made = capturing(doubled)
    for _ in range(CAPTURED_FROM + 1):
        for count in range(1, 70):
            assert torch.equal(engine(batch_of(count)), batch_of(count) * 2)
    assert sorted(set(made)) == [(size, 3) for size in (*SIZES, 128)], "each size once"
    assert len(made) == len(set(made))


def test_a_size_that_comes_once_is_not_captured() -> None:
    engine, made = capturing(doubled)
    engine(batch_of(5))
    assert made == []
    engine(batch_of(6))
    assert made == [(8, 3)]


def test_results_outlive_the_next_replay() -> None:
    engine, made = capturing(doubled)
    for _ in range(CAPTURED_FROM):
        first = engine(batch_of(4))
    assert made
    engine(batch_of(4, first=100))
    assert torch.equal(first, batch_of(4) * 2)


def test_what_cannot_be_captured_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    engine, made = capturing(doubled, fails=True)
    with caplog.at_level(logging.WARNING, "streampose"):
        for _ in range(5):
            assert torch.equal(engine(batch_of(2)), batch_of(2) * 2)
    assert made == [(2, 3)], "tried once"
    (record,) = caplog.records
    assert "cannot capture batches of 2, running them directly: operation not permitted" in record.getMessage()


def test_the_tables_of_a_capture_graph_are_kept() -> None:
    table = torch.ones(3)
    known = [table]
    engine = Engine(lambda batch: batch * known[0], tables=lambda: list(known), capture=Twin)
    for _ in range(CAPTURED_FROM):
        engine(batch_of(2))
    known[0] = torch.zeros(3)
    assert any(kept is table for _, tables in engine._graphs.values() for kept in tables)


@needs_compiler
@torch_warns
def test_a_compiled_program_gives_what_the_work_gives() -> None:
    weight = torch.randn(3, 5)
    engine = Engine(lambda batch: torch.nn.functional.gelu(batch @ weight), tables=list)
    engine.compile(waits=True)
    for count in (3, 4):
        batch = torch.randn(count, 3)
        assert torch.allclose(engine(batch), torch.nn.functional.gelu(batch @ weight), rtol=1e-4, atol=1e-5)
    compiler = engine._compiler
    assert compiler is not None
    assert compiler.program((4, 3), weight) is not None, "it did not run as it is"


@torch_warns
@pytest.mark.parametrize("simple", [True, False])
def test_networks_can_be_compiled_in_one_piece(simple: bool) -> None:
    """Without the compiler behind it, which takes a minute."""
    network, images = DenseMapNetwork(vitpose(simple=simple, experts=2)), torch.zeros(3, 64, 48, 3, dtype=torch.uint8)
    expected = network(images)
    network.engine.compile(waits=True, build=lambda work: torch.compile(work, backend="eager", fullgraph=True))
    assert torch.allclose(
        network(images), expected, rtol=1e-4, atol=1e-4
    )  # another size of batch adds in another order
    compiler = network.engine._compiler
    assert compiler is not None
    assert compiler.program((4, 64, 48, 3), images) is not None


def test_a_run_starts_before_the_compiler_is_done() -> None:
    compiling, go_on = threading.Event(), threading.Event()

    def build(work: Work) -> Work:
        def program(batch: Tensor) -> Tensor:
            if not compiling.is_set():
                compiling.set()
                assert go_on.wait(20)
            return work(batch) + 0.5

        return program

    engine = Engine(doubled, tables=list)
    engine.compile(waits=False, build=build)
    assert torch.equal(engine(batch_of(3)), batch_of(3) * 2)
    assert compiling.wait(20)
    assert torch.equal(engine(batch_of(3)), batch_of(3) * 2)
    go_on.set()
    wait_until(lambda: torch.equal(engine(batch_of(3)), batch_of(3) * 2 + 0.5), 20)


@torch_warns
def test_without_a_compiler_networks_run_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    def build(work: Work) -> Work:
        return torch.compile(work, options={"cpp.cxx": ("no-such-compiler",)})

    engine = Engine(lambda batch: (batch * 3.0).sin(), tables=list)
    engine.compile(waits=True, build=build)
    with caplog.at_level(logging.WARNING, "streampose"):
        for count in (2, 5):
            assert torch.equal(engine(batch_of(count)), (batch_of(count) * 3.0).sin())
    (message,) = (record.getMessage() for record in caplog.records if record.name == "streampose")
    assert message.startswith("cannot compile the networks, running them uncompiled: ")
    assert "compiler" in message


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_graphs_give_what_the_network_gives() -> None:
    network = DenseMapNetwork(vitpose())
    images = torch.randint(0, 256, (5, 64, 48, 3), dtype=torch.uint8)
    expected = network(images)
    network.to("cuda")
    for _ in range(CAPTURED_FROM + 2):
        for count in (5, 1, 3):
            found = network(images[:count].cuda()).cpu()
            assert torch.allclose(found, expected[:count], rtol=1e-3, atol=1e-3)
    assert network.engine._graphs


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 50])
def test_the_parts_of_a_batch_come_back_in_order(count: int) -> None:
    parts: list[int] = []
    names: set[str] = set()

    def work(part: Tensor) -> Tensor:
        parts.append(len(part))
        names.add(threading.current_thread().name)
        return part * 2.0

    assert torch.equal(spread(work, batch_of(count)), batch_of(count) * 2)
    assert sum(parts) == count
    assert max(parts) <= MOST_AT_ONCE
    assert max(parts) - min(parts) <= 1
    assert len(parts) >= min(count, worker_count())


def test_what_a_worker_raises_comes_through() -> None:
    def work(part: Tensor) -> Tensor:
        raise ArithmeticError(f"at {int(part[0, 0])}")

    with pytest.raises(ArithmeticError, match="at 1"):
        spread(work, batch_of(4))


def test_workers_leave_the_number_of_threads_of_others_alone() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    spread(lambda part: part, batch_of(2))
    assert torch.get_num_threads() == before
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [before]
    assert worker_threads() == [max(1, before // worker_count())] * worker_count()


def test_work_on_a_worker_is_not_dealt_out_again() -> None:
    """A worker that waited for the others while they wait for theirs would wait for ever."""
    count = 4 * worker_count()
    assert torch.equal(
        spread(lambda part: spread(lambda inner: inner * 2.0, part), batch_of(count)), batch_of(count) * 2
    )
    assert each(lambda part: each(lambda inner: inner + 1, [part, part]), list(range(count))) == [
        [number + 1] * 2 for number in range(count)
    ]


def test_a_thread_of_one_core_borrows_those_of_all_workers() -> None:
    seen: list[int] = []

    def run() -> None:
        use_cores(1)
        for _ in range(2):
            seen.append(torch.get_num_threads())
            with all_cores():
                seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    cores = torch.get_num_threads()
    assert seen == [1, cores, 1, cores, 1]


def worker_threads() -> list[int]:
    """The number of torch's threads of every worker."""
    met = threading.Barrier(worker_count())

    def ask(part: Tensor) -> Tensor:
        met.wait(10)
        return part * 0 + torch.get_num_threads()

    counts = spread(ask, batch_of(worker_count()))
    return counts[:, 0].int().tolist()
