"""The Ray actor: a `Station` in a process of its own, on any machine of a cluster. Ray imports this module there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from streampose._version import __version__
from streampose.archive.orders import Answer, Order, Task
from streampose.errors import StreamposeError, UsageError, describe


class Worker:
    """Does tasks for a batch. Ray makes it an actor, whose methods run concurrently."""

    def __init__(self) -> None:
        """Do nothing that takes long: see `load`."""
        from streampose.archive.station import Station

        self._kind = Station
        self._station: Station | None = None

    async def load(self, order: Order, cores: int, prepare: Callable[[], None]) -> tuple[int, str] | None:
        """Load the networks, to be used on so many CPU cores. `prepare` sets up the process.

        Returns:
            None; or why it cannot work here, with the exit code.
        """
        try:
            await asyncio.to_thread(self._load, order, cores, prepare)
        except StreamposeError as error:
            return error.exit_code, str(error)
        return None

    async def work(self, task: Task) -> Answer:
        """Do a task. Raises `StreamposeError` if this process cannot go on."""
        assert self._station is not None
        try:
            return await asyncio.wrap_future(self._station.submit(task))
        except StreamposeError as error:
            raise StreamposeError(str(error)) from None  # others cannot be sent

    async def counts(self) -> tuple[int, int]:
        """Return the frames that have passed the networks, and the people in them."""
        return (0, 0) if self._station is None else self._station.counts

    def _load(self, order: Order, cores: int, prepare: Callable[[], None]) -> None:
        _check(order)
        prepare()
        import torch

        torch.set_num_threads(cores)  # Ray starts its processes with one
        self._station = self._kind(order)


def _check(order: Order) -> None:
    """Raise `UsageError` if the machine does not see what it needs."""
    if order.version != __version__:
        raise UsageError(f"it has streampose {__version__}, and the program {order.version}: install the same")
    try:
        os.chdir(order.folder)
    except OSError as error:
        if not Path(order.out).is_absolute() or not Path(order.example).is_absolute():
            raise UsageError(f"it cannot enter the folder {order.folder} ({describe(error)})") from error
    try:
        secret = Path(order.probe).read_text(encoding="utf-8")
    except (OSError, ValueError):
        secret = ""
    if secret != order.secret:
        raise UsageError(f"{order.out} is not the output folder there: share it under the same path")
    try:
        size_bytes = Path(order.example).stat().st_size
    except OSError as error:
        raise UsageError(f"it does not see {order.example} ({describe(error)})") from error
    if size_bytes != order.example_bytes:
        raise UsageError(f"{order.example} is another file there: share the recordings under the same path")
