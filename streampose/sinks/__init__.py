"""Output sinks. `open` maps a text to a sink; `sink` defines the interface of every sink."""

from streampose.sinks.sink import SharedSink, Sink

__all__ = ["SharedSink", "Sink"]
