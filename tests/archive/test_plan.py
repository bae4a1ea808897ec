"""What a batch finds, what it calls the outputs, and what it decides to do."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from streampose.archive.entry import Entry, State
from streampose.archive.plan import Found, find_inputs, make_plan, targets_of
from streampose.errors import UsageError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        *("in/clip10.mp4", "in/clip2.MP4", "in/b/c/deep.mkv", "in/b/notes.txt", "in/.hidden.mp4", "in/.cache/x.mp4"),
        *("in/folder.mp4/inside.webm", "in/out/old.mp4", "elsewhere/linked.mp4", "elsewhere/more/y.mp4"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "in" / "link.mp4").symlink_to(tmp_path / "elsewhere" / "linked.mp4")
    (tmp_path / "in" / "away").symlink_to(tmp_path / "elsewhere" / "more")
    (tmp_path / "in" / "b" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "broken.mp4").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(inputs: list[str], out: str = "in/out") -> list[str]:
    return [one.name for one in find_inputs(inputs, Path(out)).recordings]


@pytest.mark.usefixtures("tree")
def test_a_folder_is_searched_with_its_subfolders_but_not_the_outputs() -> None:
    expected = ["broken.mp4", "clip2.MP4", "clip10.mp4", "link.mp4", "b/c/deep.mkv", "folder.mp4/inside.webm"]
    assert names(["in"]) == expected
    assert names(["in/"]) == expected
    assert "out/old.mp4" in names(["in"], "elsewhere/out")


def test_paths_are_as_the_user_spells_them(tree: Path) -> None:
    assert {one.path for one in find_inputs(["in/b"], Path("out")).recordings} == {"in/b/c/deep.mkv"}
    (one,) = find_inputs([str(tree / "in" / "b")], Path("out")).recordings
    assert one.path == str(tree / "in" / "b" / "c" / "deep.mkv")
    assert one.size_bytes == 1
    assert one.modified_ns == Path(one.path).stat().st_mtime_ns


@pytest.mark.usefixtures("tree")
def test_glob_patterns() -> None:
    assert names(["in/*"]) == ["broken.mp4", "clip2.MP4", "clip10.mp4", "link.mp4"]
    assert names(["in/**/*.mkv"]) == ["b/c/deep.mkv"], "links to folders are not followed"
    assert names(["in/b/round/*2.*"], "out") == ["clip2.MP4"], "unless the pattern names one"
    assert names(["in/b/*.txt"], "out") == ["notes.txt"], "a suffix that is asked for is taken"
    assert find_inputs(["in/c*.mp4"], Path("out")).root == os.path.realpath("in")
    with pytest.raises(UsageError, match="no video files found"):
        find_inputs(["in/*.avi"], Path("out"))


def test_names_in_lists(tree: Path) -> None:
    (tree / "list").write_bytes(f"./in/clip2.MP4\r\n{tree}/in/link.mp4\nin/../in/clip2.MP4\n../x.mp4\n".encode())
    absolute = str(tree / "in" / "link.mp4").lstrip("/")
    outside = str(tree.parent / "x.mp4").lstrip("/")
    assert names(["list"]) == ["in/clip2.MP4", absolute, outside]
    (tree / "nul").write_bytes(b"in/clip2.MP4\0in/b/c/deep.mkv\0")
    assert names(["nul"]) == ["in/clip2.MP4", "in/b/c/deep.mkv"]


def test_outputs_that_would_be_recordings_are_refused(tree: Path) -> None:
    for out in ("in", "in/../in", ".", str(tree)):
        with pytest.raises(UsageError, match="holds the recordings"):
            find_inputs(["in"], Path(out))
    with pytest.raises(UsageError, match="holds the recordings"):
        find_inputs(["in/*.mp4"], Path("in"))


def found(name: str, size_bytes: int = 5, modified_ns: int = 6) -> Found:
    return Found(name, f"in/{name}", size_bytes, modified_ns)


def known(name: str, state: State = State.DONE, *, label: str = "", crashes: int = 0) -> dict[str, Entry]:
    return {name: Entry(name, label or name.split("/")[-1].split(".")[0], 5, 6, state, crashes=crashes)}


def test_recordings_with_the_same_stem_get_outputs_of_their_own() -> None:
    some = ["a.mp4", "b.mp4", "B.mov", "sub/a.mp4", "c.tar.mp4", "d.mp4", "d.mov", "d.mp4.mkv", "{time}.mp4"]
    plan = make_plan([found(name) for name in some], known("a.mov"), retry_failed=False)
    labels = {entry.name: entry.label for entry in plan.entries}
    assert labels == {
        "a.mp4": "a.mp4",
        "b.mp4": "b.mp4",
        "B.mov": "B.mov",
        "sub/a.mp4": "a",
        "c.tar.mp4": "c.tar",
        "d.mp4": "d.mp4",
        "d.mov": "d.mov",
        "d.mp4.mkv": "d.mp4.mkv",
        "{time}.mp4": "(time)",
    }


def test_the_tree_is_mirrored() -> None:
    entry = Entry("x {1}/y/clip.mp4", "clip", 1, 1)
    assert targets_of(entry, ["{name}.jsonl", "stills/{name}/", "null"]) == [
        "x (1)/y/clip.jsonl",
        "x (1)/y/stills/clip/",
        "null",
    ]
    assert targets_of(replace(entry, name="clip.mp4"), ["{name}.jsonl"]) == ["clip.jsonl"]


def test_only_what_is_not_done_is_to_be_done() -> None:
    before = known("done.mp4") | known("failed.mp4", State.FAILED) | known("waits.mp4", State.WAITING)
    here = [found(name) for name in ("done.mp4", "failed.mp4", "waits.mp4", "new.mp4")]
    plan = make_plan(here, before, retry_failed=False)
    assert [one.name for one in plan.queue] == ["waits.mp4", "new.mp4"]
    assert [entry.name for entry in plan.entries] == ["new.mp4"]
    plan = make_plan(here, before, retry_failed=True)
    assert [one.name for one in plan.queue] == ["failed.mp4", "waits.mp4", "new.mp4"]


def test_recordings_that_have_changed_are_done_again() -> None:
    before = known("done.mp4") | known("failed.mp4", State.FAILED) | known("waits.mp4", State.WAITING)
    here = [found("done.mp4", 7), found("failed.mp4", 5, 8), found("waits.mp4", 9)]
    plan = make_plan(here, before, retry_failed=False)
    assert [one.name for one in plan.queue] == ["done.mp4", "failed.mp4", "waits.mp4"]
    assert plan.changed == ["done.mp4", "failed.mp4"]
    assert [(entry.state, entry.size_bytes) for entry in plan.entries] == [
        (State.WAITING, 7),
        (State.WAITING, 5),
        (State.WAITING, 9),
    ]


def test_what_is_gone_is_forgotten_unless_it_is_done() -> None:
    before = known("done.mp4") | known("failed.mp4", State.FAILED) | known("ran.mp4", State.RUNNING)
    plan = make_plan([found("new.mp4")], before, retry_failed=False)
    assert plan.gone == ["failed.mp4", "ran.mp4"]


def test_recordings_under_suspicion_come_last() -> None:
    before = known("ran.mp4", State.RUNNING) | known("often.mp4", State.RUNNING, crashes=2)
    before |= known("once.mp4", State.WAITING, crashes=1)
    here = [found(name) for name in ("ran.mp4", "often.mp4", "once.mp4", "new.mp4")]
    plan = make_plan(here, before, retry_failed=False)
    assert [one.name for one in plan.queue] == ["new.mp4", "ran.mp4", "once.mp4"]
    (given_up,) = [entry for entry in plan.entries if entry.name == "often.mp4"]
    assert given_up.state is State.FAILED
    plan = make_plan(here, before, retry_failed=True)
    assert [one.name for one in plan.queue] == ["often.mp4", "new.mp4", "ran.mp4", "once.mp4"]
