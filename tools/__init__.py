"""Developer tools for streampose: generators for parts of the docs, and evaluations."""
