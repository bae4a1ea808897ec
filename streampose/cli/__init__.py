"""The command line: flags, exit codes, signals and one-line errors."""
