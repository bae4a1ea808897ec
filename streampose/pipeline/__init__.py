"""The threads and channels between sources and sinks."""
