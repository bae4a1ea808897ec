"""The rooms: how large they may be, and which of them know of which."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "streampose"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MAX_MODULE_LINES = 400
MAX_CLASS_LINES = 250

TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Yield the modules of ours that are imported with a module: not within functions, not for types only."""
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if is_for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            for one in node.names:
                inner = f"{node.module}.{one.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        todo += ast.iter_child_nodes(node)


GRAPH = {name: {one for one in imports_of(tree) if one in MODULES} - {name} for name, tree in TREES.items()}


@pytest.mark.parametrize("name", MODULES)
def test_no_module_and_no_class_is_too_long(name: str) -> None:
    lines = MODULES[name].read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_MODULE_LINES
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= MAX_CLASS_LINES, node.name


def circle_in(graph: dict[str, set[str]]) -> list[str] | None:
    """Return modules that import each other, in order; None where there are none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        for other in sorted(graph[name]):
            circle = visit(other, [*path, name])
            if circle:
                return circle
        done.add(name)
        return None

    for name in graph:
        circle = visit(name, [])
        if circle:
            return circle
    return None


def test_no_modules_import_each_other() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle_in(GRAPH) is None


def reached_from(prefix: str) -> set[str]:
    """Return the modules that those below `prefix` import, themselves or through others of ours."""
    todo = [name for name in GRAPH if name.startswith(prefix)]
    reached: set[str] = set()
    while todo:
        for one in GRAPH[todo.pop()] - reached:
            reached.add(one)
            todo.append(one)
    return reached


def test_which_rooms_know_of_which() -> None:
    assert GRAPH["streampose.frames"] == set()
    allowed = {"streampose.networks.known", "streampose.networks"}  # names of the table of options
    for room in ("streampose.sources", "streampose.sinks"):
        assert {one for one in reached_from(room) if one.startswith("streampose.networks")} <= allowed
    for pure in (
        "streampose.people",
        "streampose.networks.geometry",
        "streampose.networks.uncertainty",
        "streampose.pipeline.schedule",
    ):
        knows = reached_from(pure)
        assert not {one for one in knows if re.match(r"streampose\.(sources|sinks|pipeline\.pipeline|cli)", one)}
    assert not {name for name, imported in GRAPH.items() if "streampose.cli" in str(imported)} - {
        name for name in MODULES if name.startswith("streampose.cli") or name == "streampose.__main__"
    }


def texts_of(tree: ast.Module) -> Iterator[str]:
    """Yield the texts of a module but for its docstrings."""
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


@pytest.mark.parametrize("name", [name for name in MODULES if not re.match(r"streampose\.(cli|options)", name)])
def test_only_the_command_line_knows_flags(name: str) -> None:
    flags = [text for text in texts_of(TREES[name]) if re.search(r"(^|[\s`(])--[a-z]", text)]
    assert [flag for flag in flags if "--revision" not in flag] == []  # of another program
