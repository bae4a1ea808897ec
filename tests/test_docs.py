"""The README and the pages say what the program says, and what they name is there."""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import streampose
from streampose.cli.config import read_config
from streampose.cli.main import parser as parser_of_program
from streampose.options import options_of
from tools.docs_bench import PAGE, README, SECTION, summary
from tools.docs_help import PAGE as CLI_PAGE
from tools.docs_help import with_help

ROOT = README.parent
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
USER_PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
OTHER_FLAGS = {
    "--address",  # ray
    "--disable-usage-stats",  # ray
    "--extra-index-url",  # pip
    "--head",  # ray
    "--list-formats-ext",  # v4l2-ctl
    "--port",  # ray
    "--rounds",  # tools.evaluate_follow
}
"""Flags of other programs that the pages name."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Yield the relative links in a page's text that lead nowhere."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = page if not path else page.parent / path
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            yield target


def known_flags() -> set[str]:
    """Return every flag of the program and its commands."""
    parsers: list[argparse.ArgumentParser] = [parser_of_program()]
    flags: set[str] = set()
    for parser in parsers:
        for action in parser._actions:
            flags.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return flags


def unknown_flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text)) - known_flags() - OTHER_FLAGS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert list(broken_links(page, page.read_text(encoding="utf-8"))) == []


def test_a_link_to_nothing_is_found() -> None:
    text = "[a](docs/none.md) [b](#none) [c](docs/cli.md#none) [d](docs/cli.md#exit-codes) [e](https://none.example/x)"
    assert list(broken_links(README, text)) == ["docs/none.md", "#none", "docs/cli.md#none"]


def test_the_readme_links_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)", README.read_text(encoding="utf-8")))
    assert linked == {name_of(page) for page in USER_PAGES[1:]}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_flag_that_is_named_is_one(page: Path) -> None:
    assert unknown_flags(page.read_text(encoding="utf-8")) == set()


def test_a_flag_that_is_none_is_found() -> None:
    assert unknown_flags("`--to FILE --no-such-flag`, --detect-every=3, a--b") == {"--no-such-flag"}


def test_the_help_on_its_page_is_the_programs() -> None:
    text = CLI_PAGE.read_text(encoding="utf-8")
    assert with_help(text) == text, "run: make docs"
    assert "usage: streampose run" in text


def test_the_readme_shows_the_beginning_of_the_measured_table() -> None:
    shown = SECTION.search(README.read_text(encoding="utf-8"))
    whole = SECTION.search(PAGE.read_text(encoding="utf-8"))
    assert shown is not None
    assert whole is not None
    assert shown["table"] == summary(whole["table"])


@pytest.mark.parametrize("page", USER_PAGES, ids=name_of)
def test_the_python_on_the_pages_compiles(page: Path) -> None:
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        compile(code, name_of(page), "exec")


def test_the_configuration_file_names_what_the_program_knows(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "cameras.md").read_text(encoding="utf-8")
    example = re.search(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert example is not None
    (tmp_path / "cameras.toml").write_text(example[1], encoding="utf-8")
    inputs, _ = read_config(tmp_path / "cameras.toml")
    assert [one.name for one in inputs] == ["door", "hall"]
    of_source = [option.key for option in options_of("run") if option.of_source]
    assert [key for key in of_source if f"`{key}`" not in text] == []


def test_the_python_page_names_every_field_of_an_input() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert [name for name in streampose.Input.__dataclass_fields__ if f"`{name}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_on_the_pages_are_understood(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            while "streampose" in words:
                words = words[words.index("streampose") + 1 :]
                command = list(itertools.takewhile(lambda word: word not in ("|", ">"), words))
                parser_of_program().parse_args(command)
