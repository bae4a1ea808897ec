"""People over time: pure logic over arrays, with the time passed in."""

from typing import Any

REMEMBER_S = 30.0
"""How long somebody who is not seen is remembered, by default."""

State = dict[str, Any]
"""What something that follows people over time must keep in order to continue later: arrays, numbers, texts, None, and
lists and dictionaries of them, by name."""
