"""Programs for the developers of streampose: parts of the README, and evaluations."""
