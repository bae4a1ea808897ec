"""Where frames come from: `open` takes a text to a source, `source` holds the interface."""
