"""The notebook of the documentation runs as it is, from top to bottom, in an empty folder."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

import streampose

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "notebook.ipynb"
ABSOLUTE = r"(?<![\w.:/<])/\w+/|[A-Z]:\\"
"""A path that only one machine has."""


def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def shown_by(code: str, names: dict[str, Any]) -> Any:
    """Run a cell; return the value of its last expression, which a notebook shows."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NOTEBOOK.name, "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)


def test_no_output_and_no_place_is_stored() -> None:
    for cell in code_cells():
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    assert re.search(ABSOLUTE, NOTEBOOK.read_text(encoding="utf-8")) is None
    assert all(re.search(ABSOLUTE, text) for text in ("('/home/a.jpg')", "in /data/x", r"C:\\Users"))


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = mpl.get_backend()
    mpl.use("Agg")
    names: dict[str, Any] = {}
    results, tables = [], []
    try:
        for cell in code_cells():
            shown = shown_by("".join(cell["source"]), names)
            if isinstance(shown, streampose.Result):
                results.append(shown)
                assert shown._repr_html_().startswith("<figure><img ")
            elif hasattr(shown, "columns"):
                tables.append(shown)
                assert shown._repr_html_()
        assert [len(result.people) for result in results[:2]] == [4, 2]
        assert [axes.get_title() for axes in names["figure"].axes] == ["right wrist"]
        assert len(names["axes"].get_lines()) >= 3, "a curve for each person"
        assert [len(table) for table in tables] == [5, len(names["axes"].get_lines())]
    finally:
        names["plt"].close("all")
        mpl.use(before)
    assert [path.name for path in tmp_path.iterdir()] == ["poses.jsonl"]
