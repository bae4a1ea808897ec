"""Writes the table of a measurement into docs/numbers.md, and its first two parts, which name the run and its speed,
into the README: `streampose bench --json FILE`, then `python -m tools.docs_bench FILE`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from streampose.bench.report import Report, table

_ROOT = Path(__file__).resolve().parent.parent
README = _ROOT / "README.md"
PAGE = _ROOT / "docs" / "numbers.md"
SECTION = re.compile(r"(<!-- bench -->\n\n```text\n)(?P<table>.*?)(\n```\n\n<!-- /bench -->)", re.DOTALL)


def summary(printed: str) -> str:
    """Return the parts of a printed table that the README shows: what ran, and how fast."""
    return "\n\n".join(printed.split("\n\n")[:2])


def with_table(text: str, printed: str) -> str:
    """Return a page's text with a printed table in its place."""
    return SECTION.sub(lambda match: f"{match[1]}{printed}{match[3]}", text)


if __name__ == "__main__":
    measured = table(Report(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    for page, printed in ((PAGE, measured), (README, summary(measured))):
        page.write_text(with_table(page.read_text(encoding="utf-8"), printed), encoding="utf-8")
