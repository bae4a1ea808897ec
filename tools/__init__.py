"""Programs for the developers of streampose: generated parts of the docs, and evaluations."""
