"""People over time: pure logic over arrays, with the time passed in."""
