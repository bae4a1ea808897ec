"""Colours, HDR, crop flags and clocks of files: what people have, made here."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

import streampose
from streampose.frames import Colours
from streampose.sources.open import open_source
from tests import tiny as networks
from tests.clips import make_clip, read_number

COLOURS_RGB = [(190, 190, 190), (14, 222, 4), (174, 0, 1), (0, 0, 182), (200, 160, 130), (16, 16, 16)]
BT709, BT601, UNSAID = 1, 6, 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A detector and a pose network with random weights."""
    folder = tmp_path_factory.mktemp("networks")
    return {
        "detector": str(networks.save_dense_detector(folder / "detector")),
        "pose": str(networks.save_pose(folder / "pose")),
        "keypoint_threshold": "1",  # nothing is drawn
    }


def bars(width: int, height: int, colours: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(colours, float)
    picture = np.zeros((height, width, 3))
    for number, colour in enumerate(values):
        picture[:, number * width // len(values) : (number + 1) * width // len(values)] = colour
    return picture


def centres(image: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """The colours of the bars, RGB."""
    height, width = image.shape[:2]
    columns = (2 * np.arange(len(COLOURS_RGB)) + 1) * width // (2 * len(COLOURS_RGB))
    return image[height // 2, columns, ::-1].astype(float)


def write_video(
    path: Path, planes: list[npt.NDArray[np.generic]], size: tuple[int, int], pix_fmt: str, tags: Mapping[str, int]
) -> Path:
    """Write YUV planes as they are, losslessly, under these tags."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        assert isinstance(video, av.VideoStream)
        video.width, video.height = size
        video.pix_fmt = pix_fmt
        for tag, value in tags.items():
            setattr(video.codec_context, tag, value)
        for index in range(3):
            frame = av.VideoFrame(*size, pix_fmt)
            for plane, values in zip(frame.planes, planes, strict=True):
                rows = np.zeros((plane.height, plane.line_size), np.uint8)
                data = np.ascontiguousarray(values).view(np.uint8).reshape(plane.height, -1)
                rows[:, : data.shape[1]] = data
                plane.update(rows.tobytes())
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


def limited(rgb: npt.NDArray[np.float64], red: float, blue: float, scale: int = 1) -> list[npt.NDArray[np.float64]]:
    """RGB 0..1 to Y, Cb, Cr of limited range, by the weights of red and blue in Y (ITU-R BT.601, 709, 2020)."""
    y = rgb @ [red, 1 - red - blue, blue]
    cb, cr = (rgb[..., 2] - y) / (2 - 2 * blue), (rgb[..., 0] - y) / (2 - 2 * red)
    return [scale * (219 * y + 16), scale * (224 * cb + 128), scale * (224 * cr + 128)]


@pytest.mark.parametrize(
    ("size", "weights", "tags"),
    [
        ((1280, 720), (0.2126, 0.0722), {}),
        ((720, 640), (0.2126, 0.0722), {}),
        ((640, 360), (0.299, 0.114), {}),
        ((640, 360), (0.2126, 0.0722), {"colorspace": BT709}),
        ((1280, 720), (0.299, 0.114), {"colorspace": BT601}),
    ],
)
def test_the_matrix_is_that_of_the_tag_or_of_the_usual_rule(
    tmp_path: Path, size: tuple[int, int], weights: tuple[float, float], tags: dict[str, int]
) -> None:
    planes = [np.round(plane).astype(np.uint8) for plane in limited(bars(*size, COLOURS_RGB) / 255, *weights)]
    path = write_video(tmp_path / "a.mkv", planes, size, "yuv444p", tags)
    with open_source(path) as source:
        image = next(source.frames()).image
    assert np.abs(centres(image) - COLOURS_RGB).max() <= 3


@pytest.mark.parametrize("colours", [Colours(1, 1), Colours(6, 6), Colours(12, 1), Colours(2, 2)])
def test_a_copy_is_tagged_as_its_source(tmp_path: Path, tiny: dict[str, str], colours: Colours) -> None:
    size = (320, 180)
    planes = [np.round(plane).astype(np.uint8) for plane in limited(bars(*size, COLOURS_RGB) / 255, 0.299, 0.114)]
    tags = {"color_primaries": colours.primaries, "color_trc": colours.transfer}
    path = write_video(tmp_path / "a.mkv", planes, size, "yuv444p", tags)
    list(streampose.stream(path, to=tmp_path / "copy.mp4", **tiny))
    with av.open(str(tmp_path / "copy.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.color_primaries, frame.color_trc, frame.colorspace) == (*colours, BT601)
    assert np.abs(centres(frame.to_ndarray(format="bgr24")) - COLOURS_RGB).max() <= 10  # what H.264 loses


def to_bt2020(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """sRGB 0..1 to linear BT.2020 (ITU-R BT.2087)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    return np.clip(linear @ np.transpose(matrix), 0, 1)


def pq(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """SMPTE ST 2084, white paper at 203 nits."""
    power = (light * 203 / 10_000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def hlg(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ITU-R BT.2100, white paper at 75 % of the signal."""
    scene = light * 0.2647
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


@pytest.mark.parametrize(("transfer", "signal"), [(16, pq), (18, hlg)])
def test_hdr_looks_as_the_same_scene_in_sdr(tmp_path: Path, transfer: int, signal: object) -> None:
    size = (320, 180)
    assert callable(signal)
    planes = limited(signal(to_bt2020(bars(*size, COLOURS_RGB) / 255)), 0.2627, 0.0593, 4)
    stored = [np.round(planes[0]).astype("<u2"), *(np.round(plane[::2, ::2]).astype("<u2") for plane in planes[1:])]
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": transfer}
    path = write_video(tmp_path / "a.mkv", stored, size, "yuv420p10le", tags)
    with open_source(path) as source:
        captured = next(source.captures())
        assert source.info.colours == Colours(1, 13)
    assert captured.shrink is None
    differences = np.abs(centres(captured.frame.image) - COLOURS_RGB)
    assert differences.max() <= 16, "the darkest parts of the purest colours"
    assert differences.mean() <= 3


def test_hdr_whiter_than_paper_is_brighter_and_not_cut_off(tmp_path: Path) -> None:
    size = (320, 180)
    light = bars(*size, [(value,) * 3 for value in (0.2, 0.8, 1.0, 1.5, 3.0, 4.9)])
    planes = limited(pq(light), 0.2627, 0.0593, 4)
    stored = [np.round(planes[0]).astype("<u2"), *(np.round(plane[::2, ::2]).astype("<u2") for plane in planes[1:])]
    path = write_video(tmp_path / "a.mkv", stored, size, "yuv420p10le", {"colorspace": 9, "color_trc": 16})
    with open_source(path) as source:
        greys = centres(next(source.frames()).image)[:, 0]
    assert (np.diff(greys) >= 1).all()
    assert greys[2] > 235
    assert greys[-1] >= 253


def with_tracks_at_the_end(data: bytes) -> bytes:
    """Move the tracks of a Matroska file behind its clusters, as editors do that find no room at their place."""
    entry = bytes.fromhex("4dbb8b53ab841654ae6b53ac81f1")  # of the index: the tracks are at 0xf1
    head, void = data.index(bytes.fromhex("114d9b74c0")), bytes.fromhex("ec01000000000000")
    segment, at = head, data.index(entry)
    padding = data.index(void, at) + len(void)
    start = data.index(bytes.fromhex("1654ae6b"), at + len(entry))
    stop = start + 6 + int.from_bytes(data[start + 4 : start + 6], "big") - 0x4000
    place = (len(data) - segment).to_bytes(2, "big")
    size = int.from_bytes(data[segment - 7 : segment], "big") + stop - start
    return b"".join(
        [
            data[: segment - 7],
            size.to_bytes(7, "big"),
            data[head : head + 4] + b"\xc1",  # the index is a byte longer, its padding a byte shorter
            data[head + 5 : at] + bytes.fromhex("4dbb8c53ab841654ae6b53ac82") + place,
            data[at + len(entry) : padding] + bytes([data[padding] - 1]) + data[padding + 2 : start],
            b"\xec\x01" + (stop - start - 9).to_bytes(7, "big") + bytes(stop - start - 9),
            data[stop:] + data[start:stop],
        ]
    )


def test_the_crop_flags_of_matroska(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", frames=3, size=(320, 180))
    data = path.read_bytes()
    start = data.index(bytes.fromhex("e08bb0820140ba81b4"))
    video = data[start + 2 : start + 13]
    padding = data[start + 13 : start + 28]
    assert padding == bytes.fromhex("55ee8100ec01000000000000020000"), "what the muxer leaves room with"
    cropped = b"\xe0\x93" + video + bytes.fromhex("54bb811e54aa810a")  # 30 lines above, 10 below
    path.write_bytes(data[:start] + cropped + b"\xec\x85\0\0\0\0\0" + data[start + 28 :])
    with open_source(path) as source:
        captured = next(source.captures())
        assert (source.info.width, source.info.height) == (320, 140)
    assert captured.frame.image.shape == (140, 320, 3)
    assert captured.shrink is None
    (tmp_path / "moved.mkv").write_bytes(with_tracks_at_the_end(path.read_bytes()))
    with open_source(tmp_path / "moved.mkv") as source:
        assert [frame.image.shape[0] for frame in source.frames()] == [140] * 3
    # Half of it is no file to be sure of: it is read as one without flags, or refused.
    for end in range(start, start + 30, 3):
        (tmp_path / "b.mkv").write_bytes(path.read_bytes()[:end])
        with pytest.raises(streampose.SourceError):
            open_source(tmp_path / "b.mkv")


@pytest.mark.parametrize(("codec", "b_frames"), [("mpeg4", 0), ("mpeg4", 2), ("libx264", 0), ("libx264", 3)])
def test_b_frames_in_avi_come_at_even_times(tmp_path: Path, codec: str, b_frames: int) -> None:
    path = make_clip(tmp_path / "a.avi", frames=30, codec=codec, b_frames=b_frames)
    with open_source(path) as source:
        frames = list(source.frames())
    assert [read_number(frame.image) for frame in frames] == list(range(30))
    assert [frame.pts_s for frame in frames] == pytest.approx([index / 25 for index in range(30)])


def test_the_shape_of_pixels_of_a_turned_frame(tmp_path: Path) -> None:
    with open_source(make_clip(tmp_path / "a.mp4", rotation=90, pixel_aspect=Fraction(4, 3), frames=3)) as source:
        assert next(source.frames()).pixel_aspect == Fraction(3, 4)
