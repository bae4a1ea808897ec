"""Handles for work that has started and whose result is collected later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pending(Protocol[T_co]):
    """A handle for work that has started; `concurrent.futures.Future` satisfies this protocol."""

    def result(self) -> T_co:
        """Wait for the work. Return its result, or raise its exception."""


@dataclass(frozen=True, slots=True)
class Ready(Generic[T]):
    """A handle whose result is already available."""

    value: T

    def result(self) -> T:
        """Return the value."""
        return self.value
