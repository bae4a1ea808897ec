"""Wrong usage and failures: one line, the right exit code, and no secret."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streampose.cli.main import main
from tests.cli.helpers import run, run_child, the_error
from tests.clips import make_clip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "demo", "--to", "out.xyz"], "out.xyz"),
        (["run", "demo", "--to", "a.mp4", "--to", "{cwd}/a.mp4", "--overwrite"], "a.mp4"),
        (["run", "--to", "null"], "SOURCE"),
        (["run", "demo", "--config", "x.toml"], "--config"),
        (["run", "--config", "missing.toml"], "missing.toml"),
        (["run", "demo", "demo", "--to", "null"], "NAME=SOURCE"),
        (["run", "a=demo", "b=demo", "--to", "x.jsonl"], "{source}"),
        (["run", "demo", "--to", "null", "--device", "tpu"], "cpu"),
        (["run", "demo", "--to", "null", "--dtype", "float8"], "float32"),
        (["run", "demo", "--to", "null", "--classes", "unicorn"], "person"),
        (["run", "demo", "--to", "null", "--dataset-index", "3"], "3"),
        (["run", "srtp://user:secret@camera/1", "--to", "null"], "srtp://***@camera/1"),
    ],
)
def test_wrong_values_name_the_right_ones(tmp_path: Path, arguments: list[str], says: str) -> None:
    code, stdout, stderr = run([word.replace("{cwd}", str(tmp_path)) for word in arguments], tmp_path)
    assert says in the_error(code, stderr, 2)
    assert stdout == ""
    assert "secret" not in stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "demo", "--to", "null", "--box-threshold", "2"], "0 to 1"),
        (["run", "demo", "--to", "null", "--pose-batch", "0"], "from 1 up"),
        (["run", "demo", "--style", "fancy"], "weighted"),
        (["run", "demo", "--stall-timeout", "-1"], "above 0"),
        (["walk"], "run"),
        ([], "COMMAND"),
    ],
)
def test_wrong_flags_are_wrong_usage(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.usefixtures("no_hub")
def test_passwords_are_told_by_no_error_and_no_traceback(tmp_path: Path) -> None:
    for arguments in (
        ["run", "rtsp://me:SEC ret@s@127.0.0.1:9/1", "--to", "null", "--debug"],
        ["run", "--to", "null", "--quiet", "rtsp://me:SEC ret@s@127.0.0.1:9/1", "--style", "rtmp://me:SEC r@h/1"],
        ["run", "--to", "null", "cam 1=rtsp://me:SEC ret@s@127.0.0.1:9/1"],
        ["run", "--to", "null", "x/cam=rtsp://me:SEC ret@s@127.0.0.1:9/1"],
        ["run", "--to", "rtmp://me:SEC ret@s@127.0.0.1/{what}", "demo"],
        ["run", "demo", "--to", "null", "--pose", "http://me:SEC ret@s@127.0.0.1/model?token=SEC"],
        ["run", "--config", "cameras.toml"],
    ):
        (tmp_path / "cameras.toml").write_text("[sources.a]\nsource = ['rtsp://me:SEC ret@s@h', \"rtsp://me:SEC'r@h\"]")
        code, stdout, stderr = run(arguments, tmp_path)
        assert code in (1, 2), arguments
        assert len(stderr) > 50
        assert "SEC" not in stdout + stderr, arguments
        assert "ret@s" not in stderr, arguments


def test_missing_things_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, says in (("nowhere.mp4", "nowhere.mp4"), ("empty", "stills"), ("*.jpg", "stills")):
        code, _, stderr = run(["run", source, "--to", "null"], tmp_path)
        assert says in the_error(code, stderr, 1)


@pytest.mark.usefixtures("no_hub")
def test_an_unknown_network_is_one_line(tmp_path: Path) -> None:
    for flag in ("--pose", "--detector"):
        code, _, stderr = run(["run", "demo", "--to", "null", flag, "nobody/nothing"], tmp_path)
        line = the_error(code, stderr, 1)
        assert "nobody/nothing" in line
        assert "hf download" in line


def test_without_a_display_the_window_is_one_line(tmp_path: Path) -> None:
    code, _, stderr = run_child(["run", "demo"], tmp_path, DISPLAY="", WAYLAND_DISPLAY="")
    assert code in (1, 2)
    assert "--to" in the_error(code, stderr, code)


def test_an_unwritable_target_is_one_line(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=5)
    (tmp_path / "file").touch()
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "file/out.mp4"], tmp_path)
    assert "file" in the_error(code, stderr, 2)
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "/proc/out.mp4"], tmp_path)
    assert "/proc/out.mp4" in the_error(code, stderr, 1)


def test_models_lists_the_known_networks(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    printed = capfd.readouterr().out
    for name in ("vitpose-small-streampose", "usyd-community/vitpose-plus-huge", "PekingU/rtdetr_r50vd_coco_o365"):
        assert name in printed
    assert re.search(r"^balanced +usyd-community/vitpose-plus-base +PekingU/rtdetr_r50vd_coco_o365$", printed, re.M)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    code, _, stderr = run_child(["run", "nowhere.mp4", "--to", "null", "--debug"], tmp_path)
    assert code == 1
    assert "Traceback" in stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "--fps", "abc"], "frames per second"),
        (["demo", "demo2=demo", "--to", "-"], "only one sink can use standard output"),
    ],
)
def test_wrong_words_are_told_by_their_kind(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["run", *arguments])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    assert says in capsys.readouterr().err


def test_a_table_without_a_sink_beside_others_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cameras.toml"
    file.write_text("[sources.door]\nsource = 'demo'\nto = ['null']\n[sources.hall]\nsource = 'demo'\n")
    assert main(["run", "--config", str(file)]) == 2
    assert "[sources.hall] names no sink" in capsys.readouterr().err
