"""Writes the program's help texts into docs/cli.md. Run it with `make docs`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
_SECTION = re.compile(r"(<!-- help: streampose (?P<command>[a-z ]*) -->\n).*?(<!-- /help -->)", re.DOTALL)


def with_help(text: str) -> str:
    """Return the page's text with every help section replaced by the program's current help."""

    def section(match: re.Match[str]) -> str:
        printed = subprocess.run(
            [sys.executable, "-m", "streampose", *match["command"].split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
        ).stdout
        return f"{match[1]}\n```text\n{printed.rstrip()}\n```\n\n{match[3]}"

    return _SECTION.sub(section, text)


if __name__ == "__main__":
    PAGE.write_text(with_help(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
