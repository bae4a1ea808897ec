"""A TOML file of sources: what it may say, and what is said of a wrong one."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

import streampose
from streampose.bench.bench import run_bench
from streampose.cli.config import read_config
from streampose.cli.main import main
from streampose.errors import UsageError
from streampose.inputs import Input, parse_input
from streampose.options import OPTIONS, Option, options_of, with_flags

GOOD = """
detector = "PekingU/rtdetr_r50vd_coco_o365"
to = ["{source}.jsonl"]
box_threshold = 1
detect_every = "auto"
boxes = true

[sources.door]
source = "rtsp://user:p@ss@10.0.0.7/stream"
rtsp_transport = "udp"

[sources.hall]
source = "/dev/video2"
size = "1280x720"
to = ["hall.mkv"]
"""


def test_sources_and_arguments(tmp_path: Path) -> None:
    path = tmp_path / "cameras.toml"
    path.write_text(GOOD)
    inputs, values = read_config(path)
    assert inputs == [
        Input("rtsp://user:p@ss@10.0.0.7/stream", "door", rtsp_transport="udp"),
        Input("/dev/video2", "hall", ["hall.mkv"], size="1280x720"),
    ]
    assert values == {
        "detector": "PekingU/rtdetr_r50vd_coco_o365",
        "to": ["{source}.jsonl"],
        "box_threshold": 1,
        "detect_every": "auto",
        "boxes": True,
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no sources"),
        ("sources = 3", "no sources"),
        ("[sources]\ndoor = 'rtsp://h/1'", r"\[sources.door\]"),
        ("[sources.door]\nto = ['null']", "names no source"),
        ("[sources.door]\nsource = 7", "sources.door.source: 7 is not a text"),
        ("[sources.door]\nsource = 'x'\nrtsp_transprot = 'udp'", "sources.door.rtsp_transprot: did you mean rtsp_tra"),
        ("detecter = 'x'\n[sources.door]\nsource = 'x'", "detecter: did you mean detector"),
        ("boxes = 1\n[sources.door]\nsource = 'x'", "boxes: 1 is not true or false"),
        (
            "detect_every = 'often'\n[sources.door]\nsource = 'x'",
            "detect_every: 'often' is not a whole number",
        ),
        ("max_people = true\n[sources.door]\nsource = 'x'", "max_people: True is not a whole number"),
        ("to = 'null'\n[sources.door]\nsource = 'x'", "to: 'null' is not a list of sinks"),
        ("[sources.door]\nsource = 'x'\nfps = 'fast'", "sources.door.fps: 'fast' is not a number of frames per second"),
        ("this is no TOML", "not a valid TOML file"),
        ("[sources.door]\nsource = ''", "sources.door.source: '' is not a text"),
        ("[sources.door]\nsource = 'x'\nto = []", r"sources.door.to: \[\] is not a list of sinks"),
        ("[sources.'a/b']\nsource = 'x'", r"\[sources.a/b\]: 'a/b' cannot name a source"),
        ("[sources.'rtsp://me:SECRET word@h']\nsource = 'x'", r"\[sources.rtsp://\*\*\*@h\]"),
        ("'rtsp://me:SECRET word@h' = 'x'\n[sources.door]\nsource = 'x'", r"unknown key rtsp://\*\*\*@h"),
        *(
            (f"{key} = {value}\n[sources.door]\nsource = 'x'", f"{key}: ")
            for key, values in {
                "box_threshold": ("2", "-0.1", "nan"),
                "keypoint_threshold": ("1.1",),
                "max_people": ("0", "-1", "1.5", "9223372036854775808"),
                "detect_batch": ("0",),
                "pose_batch": ("-3",),
                "detect_every": ("0", "'often'", "true"),
                "dataset_index": ("-1",),
                "style": ("'fancy'",),
                "heatmap_blur": ("'none'", "3"),
                "blur": ("'hf'",),
                "hide": ("'people'",),
                "angles": ("[]", "''"),
                "segment": ("'1d'", "0", "-1", "inf"),
                "stall_timeout": ("0", "nan"),
            }.items()
            for value in values
        ),
        *(
            (f"[sources.door]\nsource = '0'\n{key} = {value}", f"sources.door.{key}: ")
            for key, values in {
                "give_up_after": ("-1", "nan"),
                "freshness": ("0", "inf"),
                "rtsp_transport": ("'smoke'",),
                "size": ("'big'", "1280"),
                "fps": ("0", "-5"),
            }.items()
            for value in values
        ),
    ],
)
def test_a_wrong_file_names_its_key(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "cameras.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        read_config(path)
    assert "SECRET" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*cameras\.toml"):
        read_config(tmp_path / "cameras.toml")


def test_every_option_is_a_parameter_with_the_same_default() -> None:
    parameters = inspect.signature(streampose.stream).parameters
    of_inputs = {field.name: field.default for field in fields(Input)}
    of_bench = inspect.signature(run_bench).parameters
    of_draw = inspect.signature(streampose.draw).parameters
    of_program = {"stats", "quiet", "progress", "json", "overwrite"}
    for option in OPTIONS:
        if option.of_source:
            assert of_inputs.pop(option.name) == option.default, option.name
        elif "run" in option.commands and option.name not in of_program | {"to"}:
            assert parameters[option.name].default == option.default, option.name
        if "bench" in option.commands and option.name not in of_program:
            assert of_bench[option.name].default == option.default, option.name
        if "draw" in option.commands and not option.of_source and option.name not in {"quiet", "progress", "to"}:
            assert of_draw[option.name].default == option.default, option.name
    assert set(of_inputs) == {"source", "name", "to"}, "each source's options are all in the table"
    known = {option.name for option in OPTIONS}
    assert set(parameters) - known == {"source", "draw", "results_wanted"}
    known_of_draw = {option.name for option in options_of("draw")}
    assert set(of_draw) - known_of_draw == {"source", "poses", "results_wanted"}


def test_a_file_takes_the_units_of_the_flags(tmp_path: Path) -> None:
    path = tmp_path / "cameras.toml"
    path.write_text(
        "segment = '10m'\nstall_timeout = 30\nfreshness = '2s'\nstats = 'counts.json'\nquiet = true\n"
        "[sources.a]\nsource = 'demo'\n[sources.b]\nsource = 'demo'\nfreshness = 1\n"
    )
    inputs, values = read_config(path)
    assert values == {"segment_s": 600.0, "stall_after_s": 30.0, "stats": "counts.json", "quiet": True}
    assert [one.freshness_s for one in inputs] == [2.0, 1.0]


@pytest.mark.parametrize("option", options_of("run"), ids=lambda option: option.name)
def test_every_flag_is_a_key(option: Option, tmp_path: Path) -> None:
    path = tmp_path / "cameras.toml"
    path.write_text(f"{option.key} = {{}}\n[sources.a]\nsource = 'demo'\n")
    with pytest.raises(UsageError, match=rf"{option.key}: \{{\}} is not {re.escape(option.kind.called)}"):
        read_config(path)


def test_python_names_the_parameter_and_the_program_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="`box_threshold`: 2 is not a number from 0 to 1"):
        streampose.stream("demo", box_threshold=2)
    with pytest.raises(UsageError, match="`freshness_s`: 0 is not a duration above 0"):
        streampose.stream(Input("rtsp://host/cam", freshness_s=0))
    with pytest.raises(UsageError, match="has no class 'unicorn'"):
        streampose.stream("demo", classes="unicorn")
    assert (
        with_flags("exists: replace it with `overwrite`, not `this`")
        == "exists: replace it with --overwrite, not `this`"
    )
    assert with_flags("`stall_after_s`") == "--stall-timeout"
    with pytest.raises(SystemExit):
        main(["run", "demo", "--freshness", "0"])
    assert "argument --freshness: '0' is not a duration above 0" in capsys.readouterr().err


def test_names_before_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_input("cam1=rtsp://host/1?a=b") == ("cam1", "rtsp://host/1?a=b")
    assert parse_input("rtsp://host/1?a=b") == (None, "rtsp://host/1?a=b")
    assert parse_input("clip.mp4") == (None, "clip.mp4")
    with pytest.raises(UsageError, match="'cam 1' cannot name a source"):
        parse_input("cam 1=rtsp://host/1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").touch()
    assert parse_input("a=b") == (None, "a=b")


def test_a_file_of_a_windows_editor_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b'\xef\xbb\xbf[sources.door]\r\nsource = "demo"\r\n')
    inputs, _ = read_config(file)
    assert [one.source for one in inputs] == ["demo"]
