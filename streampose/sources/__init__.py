"""Input sources. `open` maps a text to a source; `source` defines the interface."""
