"""The README says what the program says, and what it names is there."""

from __future__ import annotations

import re

from tools.readme_help import README, with_help


def test_the_help_in_the_readme_is_the_programs() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_help(text) == text, "run: make readme"


def test_every_file_that_the_readme_links_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert len(targets) > 5
    for target in targets:
        assert (README.parent / target).exists(), target
