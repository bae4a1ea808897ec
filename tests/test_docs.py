"""The pages say what the program says, and what they name is there."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

import streampose
from streampose.cli.config import read_config
from streampose.cli.main import parser
from tools.docs_help import PAGE, with_help

PROJECT = PAGE.parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")])


def names_of(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def test_the_help_is_the_programs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert with_help(text) == text, "run: make docs"


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=names_of)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target


def test_the_front_page_leads_to_every_page() -> None:
    front = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.name != "README.md" and page.name not in front] == []


@pytest.mark.parametrize("page", PAGES, ids=names_of)
def test_commands_of_a_page_are_understood(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line.partition("|")[0], comments=True)
            if words[:1] == ["streampose"]:
                parser().parse_args([word for word in words[1:] if word != "..."])


@pytest.mark.parametrize("page", PAGES, ids=names_of)
def test_options_that_a_page_names_are_there(page: Path) -> None:
    known = set(re.findall(r"--[a-z][a-z-]+", PAGE.read_text(encoding="utf-8")))
    of_others = {"--rounds", "--extra-index-url", "--version"}
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - known - of_others == set()


@pytest.mark.parametrize("page", PAGES, ids=names_of)
def test_examples_of_a_page_are_whole(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        (tmp_path / "file.toml").write_text(block)
        tomllib.loads(block)
        read_config(tmp_path / "file.toml")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(block, names_of(page), "exec")
        for name in re.findall(r"streampose\.([A-Za-z]+)\b", block):
            assert hasattr(streampose, name), name
