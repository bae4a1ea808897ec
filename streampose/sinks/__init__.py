"""Where finished frames go: `open` takes a text to a sink, `sink` holds the promise that every sink keeps."""

from streampose.sinks.sink import SharedSink, Sink

__all__ = ["SharedSink", "Sink"]
