"""The command line: flags, exit codes, signals and messages."""
