"""Work that has begun and is waited for later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pending(Protocol[T_co]):
    """Work that has begun; a `concurrent.futures.Future` is one."""

    def result(self) -> T_co:
        """Wait for the work and return what it gives, or raise what it raises."""


@dataclass(frozen=True, slots=True)
class Ready(Generic[T]):
    """Work that was over when it began."""

    value: T

    def result(self) -> T:
        """Return the value."""
        return self.value
