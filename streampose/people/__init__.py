"""People over time: pure logic over arrays, with the time passed in."""

REMEMBER_S = 30.0
"""How long somebody who is not seen is remembered, by default."""
