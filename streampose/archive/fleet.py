"""The worker processes of a batch on the machines of a Ray cluster: starts them, and replaces those that end.

All that is known of Ray is here. Knows nothing about recordings.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from streampose.archive.orders import Answer, Order, Task
from streampose.archive.worker import Worker
from streampose.errors import ModelError, StalledError, StreamposeError, UsageError, describe

log = logging.getLogger("streampose")

CORES_OF_A_PROCESS = 8
"""CPU cores of a worker process on a machine without a GPU: `streampose.networks.workers.MOST_WORKERS`."""
LOOK_EVERY_S = 2.0
"""Interval between two looks at the machines."""
MOST_DEATHS = 3
"""After so many workers in a row that died on a machine without finishing a task, the machine is not used any more."""
_CONNECTS_WITHIN_S = 3.0
_SHUTS_DOWN_WITHIN_S = 10.0
_AUTO, _LOCAL = "auto", "local"


@dataclass(slots=True, eq=False)
class Machine:
    """A machine of the cluster."""

    node: str
    name: str
    processes: int
    cores: int
    """CPU cores that each process uses,"""
    cpus: float
    """and that it takes of the cluster; less than 1 if there are more processes than cores."""
    gpu: float
    """Share of a GPU of each process."""
    deaths: int = 0
    reason: str | None = None
    """Why it is not used any more."""


@dataclass(slots=True, eq=False)
class Member:
    """A worker process."""

    machine: Machine
    actor: Any
    loading: Any
    """Ray's handle for the loading of the networks; None when they are loaded."""
    tasks: dict[Any, Task] = field(default_factory=dict)
    """The tasks in progress, by Ray's handles."""
    counts: tuple[int, int] = (0, 0)
    counting: Any = None


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker ended with a task in progress."""

    reason: str


class Fleet:
    """The worker processes. Use it as a context manager, from one thread."""

    def __init__(self, address: str, order: Order, prepare: Callable[[], None], processes: int | None = None) -> None:
        """Connect to a cluster.

        Args:
            address: `auto` for the cluster that this machine belongs to, `local` to start one on this machine for the
                time of the batch, or HOST:PORT of a cluster that this machine belongs to.
            order: what the workers are for.
            prepare: sets up a worker process. A function of a module.
            processes: worker processes per machine; None starts one per GPU, or one per `CORES_OF_A_PROCESS` cores.

        Raises:
            UsageError: Ray is not installed, or the address is invalid.
            StreamposeError: there is no such cluster.
        """
        self._address, self._order, self._prepare, self._processes = address, order, prepare, processes
        _check_installed()
        _check_address(address)
        self._ray = _import_ray()
        _connect(self._ray, address)
        self._gcs = str(self._ray.get_runtime_context().gcs_address)
        self._actor = self._ray.remote(Worker)
        self._machines: dict[str, Machine] = {}
        self.members: list[Member] = []
        self._counted = (0, 0)
        """The counts of workers that have ended."""
        self._looked_s = float("-inf")
        self._idle_since_s = time.monotonic()

    @property
    def ready(self) -> list[Member]:
        """The workers that can be given tasks."""
        return [one for one in self.members if one.loading is None]

    @property
    def counts(self) -> tuple[int, int]:
        """The frames that have passed the networks so far, and the people in them."""
        alls = [self._counted, *(one.counts for one in self.members)]
        return sum(frames for frames, _ in alls), sum(people for _, people in alls)

    def give(self, member: Member, task: Task) -> None:
        """Begin a task."""
        member.tasks[member.actor.work.remote(task)] = task

    def wait(self, timeout_s: float) -> Iterator[tuple[Member, Task, Answer | Lost]]:
        """Wait until something happens, and yield the tasks that have ended.

        Raises:
            StreamposeError: the cluster is gone, or no machine can do the work.
        """
        self._look()
        of = {one.loading: one for one in self.members if one.loading is not None}
        of |= {one.counting: one for one in self.members if one.counting is not None}
        of |= {handle: one for one in self.members for handle in one.tasks}
        if not of:
            time.sleep(timeout_s)
            return
        handles = list(of)
        over, _ = self._ray.wait(handles, num_returns=1, timeout=timeout_s)
        if over:
            over, _ = self._ray.wait(handles, num_returns=len(handles), timeout=0)
        for handle in over:
            member = of[handle]
            if member not in self.members:
                continue
            try:
                value = self._ray.get(handle)
            except self._ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, Exception) else error
                yield from self._lose(member, describe(cause))
            except self._ray.exceptions.RayError as error:
                yield from self._lose(member, _short(error))
            else:
                yield from self._take(member, handle, value)

    def kill(self, member: Member) -> None:
        """End a worker and its tasks. Another one is started in its place."""
        self._forget(member)
        with suppress(Exception):
            self._ray.kill(member.actor)

    def give_up(self, machine: Machine, reason: str) -> None:
        """Use a machine no more."""
        if machine.reason is None:
            machine.reason = reason
            log.warning("machine %s is not used: %s", machine.name, reason)

    def close(self) -> None:
        """End all workers and disconnect. Safe to call twice."""
        ray = self._ray
        for member in list(self.members):
            self._forget(member)
        if not ray.is_initialized():
            return
        # Without the cluster, it waits for minutes. The workers end with the connection.
        ending = threading.Thread(target=ray.shutdown, name="ray shutdown", daemon=True)
        ending.start()
        ending.join(_SHUTS_DOWN_WITHIN_S)
        if ending.is_alive():
            atexit.unregister(ray.shutdown)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget(self, member: Member) -> None:
        self.members.remove(member)
        self._counted = self._counted[0] + member.counts[0], self._counted[1] + member.counts[1]

    def _take(self, member: Member, handle: Any, value: Any) -> Iterator[tuple[Member, Task, Answer | Lost]]:
        if handle == member.counting:
            member.counts, member.counting = value, None
        elif handle == member.loading:
            member.loading = None
            if value is not None:
                _, reason = value
                self.give_up(member.machine, reason)
                self.kill(member)
        else:
            member.machine.deaths = 0
            yield member, member.tasks.pop(handle), value

    def _lose(self, member: Member, reason: str) -> Iterator[tuple[Member, Task, Answer | Lost]]:
        tasks, member.tasks = list(member.tasks.values()), {}
        self.kill(member)
        self._check_cluster()
        machine = member.machine
        machine.deaths += 1
        log.warning("a worker on %s ended (%s)%s", machine.name, reason, "; its tasks run again" if tasks else "")
        if machine.deaths >= MOST_DEATHS:
            self.give_up(machine, f"{machine.deaths} workers in a row ended ({reason})")
        for task in tasks:
            yield member, task, Lost(reason)

    def _look(self) -> None:
        """Find machines that have come, and start the workers that are missing."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        self._check_cluster()
        alive = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
        for key, node in alive.items():
            if key not in self._machines:
                self._machines[key] = _machine(node, self._processes)
        for key, machine in self._machines.items():
            here = sum(one.machine is machine for one in self.members)
            if key in alive and machine.reason is None:
                self.members += [self._start(machine) for _ in range(machine.processes - here)]
        for member in self.ready:
            if member.counting is None:
                member.counting = member.actor.counts.remote()
        self._check_use(now_s)

    def _check_use(self, now_s: float) -> None:
        """Raise an error if no machine can be used."""
        if self.ready:
            self._idle_since_s = now_s
            return
        reasons = {machine.reason for machine in self._machines.values()}
        if self._machines and None not in reasons:
            raise ModelError(f"no machine of the cluster can be used: {'; '.join(sorted(map(str, reasons)))}")
        if now_s - self._idle_since_s > self._order.stall_after_s:
            raise StalledError(f"no machine of the cluster was free for {self._order.stall_after_s:g} s: aborted")

    def _start(self, machine: Machine) -> Member:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = self._actor.options(
            num_cpus=0 if machine.gpu else machine.cpus,
            num_gpus=machine.gpu,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(machine.node, soft=False),
        ).remote()
        return Member(machine, actor, actor.load.remote(self._order, machine.cores, self._prepare))

    def _check_cluster(self) -> None:
        """Raise `StreamposeError` if the cluster is gone. Ray would wait for a minute and then end the process."""
        host, _, port = self._gcs.rpartition(":")
        if not _answers(host, int(port)):
            raise StreamposeError(
                f"the Ray cluster at {self._gcs} is gone: start it again, and repeat the command to continue"
            )


def _check_address(address: str) -> None:
    """Raise an error if the address is invalid, or if nothing answers there: Ray would wait for minutes."""
    if address in (_AUTO, _LOCAL):
        return
    match = re.fullmatch(r"(?P<host>[^:/\s]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})", address)
    if match is None:
        raise UsageError(f"`ray` {address}: give auto, local, or HOST:PORT as `ray start` prints it")
    if not _answers(match["host"].strip("[]"), int(match["port"])):
        raise StreamposeError(f"no Ray cluster answers at {address}: start one with ray start")


def _check_installed() -> None:
    """Raise `UsageError` if Ray is not installed. Does not load it."""
    if sys.modules.get("ray", find_spec) is None or find_spec("ray") is None:
        raise UsageError("`ray` needs Ray: pip install 'streampose[cluster]'")


def _import_ray() -> Any:
    # Ray reads these when it is imported. Its own messages would fill the terminal; it logs to files as well.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    return ray


def _connect(ray: Any, address: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address == _LOCAL:
        options |= {"include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        if address == _AUTO:
            text = "this machine belongs to no Ray cluster: start one with ray start, or give `ray` an address"
            raise StreamposeError(text) from error
        raise StreamposeError(f"cannot join the Ray cluster at {address}: {describe(error)}") from error


def _answers(host: str, port: int) -> bool:
    """Return whether a program accepts connections there."""
    until_s = time.monotonic() + _CONNECTS_WITHIN_S
    while True:
        try:
            socket.create_connection((host, port), timeout=_CONNECTS_WITHIN_S).close()
        except (OSError, OverflowError):
            if time.monotonic() > until_s:
                return False
            time.sleep(0.5)
        else:
            return True


def _machine(node: dict[str, Any], processes: int | None) -> Machine:
    resources = node["Resources"]
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    count = processes or gpus or max(1, round(cpus / CORES_OF_A_PROCESS))
    share = 0.0 if not gpus else gpus / count if gpus < count else 1.0
    if gpus:
        count = min(count, int(gpus / share))
    count = count if cpus or gpus else 0  # a machine that only manages the cluster
    of_each = cpus // max(count, 1)
    taken = float(of_each) if of_each else cpus / max(count, 1)
    return Machine(node["NodeID"], node["NodeManagerAddress"], count, max(1, of_each), taken, share)


def _short(error: Exception) -> str:
    """Return the first sentence of an error of Ray."""
    if type(error).__name__ == "ActorUnavailableError":
        return "it does not answer"
    return describe(error).split("\n")[0].split(". ")[0].strip().rstrip(".")[:200]
