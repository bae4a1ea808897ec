"""What somebody who looks at a source can change while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from streampose.drawing.annotator import Annotator
from streampose.people.only import Only


@dataclass(frozen=True, slots=True)
class Controls:
    """The parts of a run that a sink with a user in front of it needs. `Sink.take_controls` receives them."""

    annotator: Annotator
    """Draws the source as the options say. A sink that draws otherwise makes its own with `Annotator.but`."""
    only: Only
    """The step that can keep one person of the source, in all its sinks."""
