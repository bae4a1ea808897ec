"""The pipeline: threads and channels between sources and sinks."""
