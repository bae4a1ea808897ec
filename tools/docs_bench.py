"""Writes a benchmark's table into docs/numbers.md.

Run `streampose bench --json FILE`, then `python -m tools.docs_bench FILE`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from streampose.bench.report import Report, table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "numbers.md"
SECTION = re.compile(r"(<!-- bench -->\n\n```text\n)(?P<table>.*?)(\n```\n\n<!-- /bench -->)", re.DOTALL)


def with_table(text: str, report: Report) -> str:
    """Return the page's text with its table replaced by the table of `report`."""
    return SECTION.sub(lambda match: f"{match[1]}{table(report)}{match[3]}", text)


if __name__ == "__main__":
    measured = Report(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), measured), encoding="utf-8")
