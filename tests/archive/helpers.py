"""Folders of small recordings, good and broken, and what a batch made of them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from tests.clips import make_clip, numbered_image

FRAMES = 8
MOST_PIXELS = 100_000
"""For `--max-pixels`: the clips of `make_clip` have 23,040."""


def good_clips(folder: Path, count: int, frames: int = FRAMES) -> list[Path]:
    """Make clips, every third one in a folder of its own."""
    clips = []
    for number in range(count):
        inside = folder / f"day {number}" if number % 3 == 2 else folder
        inside.mkdir(parents=True, exist_ok=True)
        suffix = (".mp4", ".mkv", ".MOV")[number % 3]
        clips.append(make_clip(inside / f"clip{number}{suffix}", frames=frames, first=number * 10))
    return clips


def broken_clips(folder: Path) -> dict[str, str]:
    """Make twelve files that are broken in different ways. Return a part of the reason that is expected for each."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = make_clip(folder / "whole.mp4", frames=60, grain=60).read_bytes()
    indexed = make_clip(
        folder / "indexed.mp4", frames=60, grain=60, container_options={"movflags": "faststart"}
    ).read_bytes()
    for name in ("whole.mp4", "indexed.mp4"):
        (folder / name).unlink()
    noisy = bytearray(indexed)
    middle = len(noisy) // 2
    noisy[middle : middle + 60_000] = np.random.default_rng(1).bytes(60_000)

    (folder / "empty.mp4").touch()
    (folder / "text.mkv").write_text("This is no video.\n" * 50)
    (folder / "no index.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "cut off.mp4").write_bytes(indexed[: len(indexed) // 2])
    (folder / "damaged.mp4").write_bytes(noisy)
    (folder / "unknown codec.mp4").write_bytes(whole.replace(b"avc1", b"zz99"))
    (folder / "begins only.mov").write_bytes(whole[:200])
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:10,\nclip0.mp4\n#EXT-X-ENDLIST\n")
    (folder / "broken link.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(folder / "pipe.mp4")
    make_clip(folder / "large.mp4", frames=5, size=(640, 360))
    _sound_only(folder / "sound only.mp4")
    return {
        "empty.mp4": "is empty",
        "text.mkv": "is not a video",
        "no index.mp4": "beginning or index is missing",
        "cut off.mp4": "cut off",
        "damaged.mp4": "damaged",
        "unknown codec.mp4": "no decoder",
        "begins only.mov": "is not a video",
        "playlist.mp4": "is not a video",
        "broken link.mp4": "broken link",
        "pipe.mp4": "neither a file nor a folder",
        "large.mp4": "640 x 360",
        "sound only.mp4": "no video stream",
    }


def _sound_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        tone = container.add_stream("aac", rate=16000, layout="mono")
        assert isinstance(tone, av.AudioStream)
        for at in range(0, 16000, 1024):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
            sound.sample_rate, sound.pts = 16000, at
            container.mux(tone.encode(sound))
        container.mux(tone.encode())


def picture(path: Path) -> None:
    """Write a JPEG picture, whatever the name."""
    _, encoded = cv2.imencode(".jpg", numbered_image(1))
    path.write_bytes(encoded.tobytes())


def report(out: Path) -> dict[str, Any]:
    """Return `batch.json`."""
    values: dict[str, Any] = json.loads((out / "batch.json").read_text())
    return values


def files(out: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of `batch.json` by name."""
    return {one["name"]: one for one in report(out)["files"]}


def check_outputs(out: Path) -> None:
    """Check that the outputs are as `batch.json` says."""
    for one in report(out)["files"]:
        for output in one["outputs"]:
            content = (out / output["path"]).read_bytes()
            assert len(content) == output["size_bytes"]
            assert hashlib.sha256(content).hexdigest() == output["sha256"]
            if output["path"].endswith(".jsonl"):
                assert content.count(b"\n") == one["frames"] + 1
                assert sum(len(json.loads(line)["people"]) for line in content.splitlines()[1:]) == one["people"]


def state_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return size, time and inode of everything in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = status.st_size, status.st_mtime_ns, status.st_ino
    return found
