"""Small real clips whose pictures carry their own number, for the tests of sources and sinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

_BITS = 12
_DARK, _LIGHT = 40, 215
PATCHES_BGR = ((200, 60, 60), (60, 200, 60), (60, 60, 200))
"""The colours along the lower third of a numbered picture, left to right; soft enough to survive 4:2:0."""


def numbered_image(number: int, size: tuple[int, int] = (192, 120)) -> Image:
    """Return a (height, width, 3) BGR picture of `size` (width, height) that carries `number` (0..4095).

    The upper third holds its bits as dark and light bars, the middle third the same bars inverted, the lower third
    three patches of colour. No turn or mirroring of it is a numbered picture.
    """
    assert 0 <= number < 2**_BITS
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    bar = np.minimum(np.arange(width) * _BITS // width, _BITS - 1)
    bits = (number >> bar) & 1
    row = np.where(bits == 1, _LIGHT, _DARK).astype(np.uint8)
    third = height // 3
    image[:third] = row[None, :, None]
    image[third : 2 * third] = (_DARK + _LIGHT - row)[None, :, None]
    image[2 * third :] = np.array(PATCHES_BGR, np.uint8)[np.arange(width) * 3 // width]
    return image


def read_number(image: npt.NDArray[Any]) -> int:
    """Return the number in a picture of `numbered_image` of any size, lossy coding or not; `ValueError` without one."""
    height, width = image.shape[:2]
    centres = ((np.arange(_BITS) + 0.5) * width / _BITS).astype(int)
    grey = image.astype(float).mean(2)
    upper, lower = grey[height // 6, centres], grey[height // 2, centres]
    if np.abs(upper - lower).min() < (_LIGHT - _DARK) / 2:
        raise ValueError("no number in this picture")
    patch = image[height * 5 // 6, [width // 6, width // 2, width * 5 // 6]].astype(float)
    if patch.argmax(1).tolist() != [0, 1, 2]:
        raise ValueError("the picture is turned, or its colours are swapped")
    return int(((upper > lower) << np.arange(_BITS)).sum())


def make_clip(
    path: Path,
    *,
    frames: int = 30,
    fps: int = 25,
    size: tuple[int, int] = (192, 120),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    b_frames: int = 0,
    start_s: float = 0.0,
    times_s: Sequence[float] | None = None,
    rotation: int = 0,
    pixel_aspect: Fraction = Fraction(1),
    audio_s: float | None = None,
    grain: int = 0,
    first: int = 0,
    title: str | None = None,
    codec_options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Encode pictures numbered from `first` on into `path`, whose ending names the container, and return `path`.

    Args:
        path: the file to write.
        frames: how many pictures; with `times_s` as many as it has times.
        fps: the nominal rate, and the real one unless `times_s` is given.
        size: width and height of the picture as a player shows it, after `rotation`.
        codec: name of FFmpeg's encoder.
        pix_fmt: what the encoder is given.
        gop: a keyframe every so many pictures.
        b_frames: how many B-frames in a row.
        start_s: the first picture's time, to the nearest frame.
        times_s: every picture's time in seconds, to the millisecond, for a varying rate.
        rotation: the display matrix, in degrees counter-clockwise; stored pictures are turned the other way.
        pixel_aspect: width of a stored pixel over its height.
        audio_s: length of a tone beside the pictures, from time 0 on; None for no sound.
        grain: height of the noise over the pictures (0..255), for packets of a realistic size.
        first: the first picture's number.
        title: the file's title.
        codec_options: more options for the encoder.
        container_options: options for the muxer.
    """
    time_base = Fraction(1, 1000) if times_s is not None else Fraction(1, fps)
    first_tick = round(start_s * fps)
    ticks = [round(at_s * 1000) for at_s in times_s] if times_s is not None else range(first_tick, first_tick + frames)
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        if title is not None:
            container.metadata["title"] = title
        options = {"g": str(gop), "bf": str(b_frames), **(codec_options or {})}
        if codec == "libx264":
            options = {"preset": "veryfast", "crf": "12", "sc_threshold": "0", **options}
        video = container.add_stream(codec, rate=fps, options=options)
        assert isinstance(video, av.VideoStream)
        stored = np.rot90(numbered_image(0, size), -(rotation // 90))
        video.height, video.width = stored.shape[:2]
        video.pix_fmt = pix_fmt
        video.codec_context.time_base = time_base
        video.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            video.set_display_rotation(rotation)
        tone = container.add_stream("aac", rate=16000, layout="mono") if audio_s is not None else None
        for number, tick in enumerate(ticks, start=first):
            image = numbered_image(number, size)
            if grain:
                image = (
                    (image + noise.integers(-(grain // 2), grain // 2 + 1, image.shape)).clip(0, 255).astype(np.uint8)
                )
            image = np.ascontiguousarray(np.rot90(image, -(rotation // 90)))
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts = tick
            frame.time_base = time_base
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if tone is not None and audio_s is not None:
            assert isinstance(tone, av.AudioStream)
            for at in range(0, round(audio_s * 16000), 1024):
                wave = 8000 * np.sin(np.arange(at, at + 1024) * (2 * np.pi * 440 / 16000))
                sound = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
                sound.sample_rate = 16000
                sound.pts = at
                container.mux(tone.encode(sound))
            container.mux(tone.encode())
    return path
