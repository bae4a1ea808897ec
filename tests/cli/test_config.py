"""A TOML file of sources: what it may say, and what is said of a wrong one."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

import streampose
from streampose.cli.config import _RUN_KEYS, _SOURCE_KEYS, read_config
from streampose.errors import UsageError
from streampose.inputs import Input, parse_input

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
        ("[sources.door]\nsource = 7", "sources.door.source is a text"),
        ("[sources.door]\nsource = 'x'\nrtsp_transprot = 'udp'", "sources.door.rtsp_transprot: did you mean rtsp_tra"),
        ("detecter = 'x'\n[sources.door]\nsource = 'x'", "detecter: did you mean detector"),
        ("boxes = 1\n[sources.door]\nsource = 'x'", "boxes is true or false"),
        ("detect_every = 'often'\n[sources.door]\nsource = 'x'", "detect_every is a whole number from 1 on, or auto"),
        ("max_people = true\n[sources.door]\nsource = 'x'", "max_people is a whole number"),
        ("to = 'null'\n[sources.door]\nsource = 'x'", "to is a list of texts"),
        ("[sources.door]\nsource = 'x'\nfps = '30'", "sources.door.fps is a number"),
        ("this is no TOML", "no TOML"),
        ("[sources.door]\nsource = ''", "sources.door.source is a text"),
        ("[sources.door]\nsource = 'x'\nto = []", "sources.door.to is a list of texts"),
        ("[sources.'a/b']\nsource = 'x'", r"\[sources.a/b\]: 'a/b' cannot name a source"),
        ("[sources.'rtsp://me:SECRET word@h']\nsource = 'x'", r"\[sources.rtsp://\*\*\*@h\]"),
        ("'rtsp://me:SECRET word@h' = 'x'\n[sources.door]\nsource = 'x'", r"unknown key rtsp://\*\*\*@h"),
        *(
            (f"{key} = {value}\n[sources.door]\nsource = 'x'", f"{key} is ")
            for key, values in {
                "box_threshold": ("2", "-0.1", "nan"),
                "keypoint_threshold": ("1.1",),
                "max_people": ("0", "-1", "1.5", "9223372036854775808"),
                "detect_batch": ("0",),
                "pose_batch": ("-3",),
                "detect_every": ("0", "'often'", "true"),
                "dataset_index": ("-1",),
                "style": ("'fancy'",),
                "blur": ("'none'", "3"),
                "segment_s": ("0", "-1", "inf"),
                "stall_after_s": ("0", "nan"),
            }.items()
            for value in values
        ),
        *(
            (f"[sources.door]\nsource = '0'\n{key} = {value}", f"sources.door.{key} is ")
            for key, values in {
                "give_up_after_s": ("-1", "nan"),
                "freshness_s": ("0", "inf"),
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


def test_every_key_is_an_argument_of_the_program() -> None:
    assert {*_SOURCE_KEYS, "name"} == {field.name for field in fields(Input)}
    assert set(_RUN_KEYS) <= set(inspect.signature(streampose.stream).parameters)


def test_names_before_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_input("cam1=rtsp://host/1?a=b") == ("cam1", "rtsp://host/1?a=b")
    assert parse_input("rtsp://host/1?a=b") == (None, "rtsp://host/1?a=b")
    assert parse_input("clip.mp4") == (None, "clip.mp4")
    with pytest.raises(UsageError, match="'cam 1' cannot name a source"):
        parse_input("cam 1=rtsp://host/1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").touch()
    assert parse_input("a=b") == (None, "a=b")
