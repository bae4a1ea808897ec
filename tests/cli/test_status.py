"""What people see of a run while its sources are away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.helpers import on_a_terminal, run


def test_the_status_is_drawn_while_every_source_is_away(tmp_path: Path, tiny: list[str]) -> None:
    sources = [f"{name}=rtsp://127.0.0.1:9/{name}" for name in ("left", "right")]
    shown = on_a_terminal(
        ["run", *sources, *tiny, "--to", "null"], tmp_path, lambda text: text.count("right opening: refused") > 5
    )
    words = re.sub(r"\x1b\[[0-9?;]*[A-Za-z]", "", shown).replace("\r", "\n")
    status = [line for line in words.splitlines() if " opening: " in line]
    assert "left opening: refused: no server listens" in shown
    assert max(map(len, status)) <= 60, "a line that is wrapped would stay"
    logged = [line for line in words.splitlines() if "left is unavailable" in line]
    assert [line.startswith("streampose: left") for line in logged] == [True], "it does not run into the status"
    assert "Traceback" not in shown


def test_a_status_line_is_written_while_the_source_is_away(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streampose.cli.progress.Log.every_s", 2.0)  # instead of 10
    code, _, stderr = run(["run", "rtsp://127.0.0.1:9/1", *tiny, "--to", "null", "--give-up-after", "3"], tmp_path)
    assert code == 1
    assert stderr.count("127.0.0.1_9_1 is unavailable: refused") == 1
    assert stderr.count("127.0.0.1_9_1 opening: refused") == 1
