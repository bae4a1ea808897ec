"""Inputs that are valid but unusual: what some cameras, phones and editors write."""

from __future__ import annotations

import contextlib
import threading
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import numpy.typing as npt
import PIL.Image
import pillow_heif
import pytest
from av.stream import Disposition

from streampose.errors import SourceError, UsageError
from streampose.inputs import Input
from streampose.sources.open import open_source
from tests.clips import make_clip, numbered_image, read_number
from tests.sources.test_convert import COLOURS_RGB, bars, centres, hlg, limited, pq, to_bt2020, write_video

Float64 = npt.NDArray[np.float64]

RED, GREEN, BLUE, GREY = (200, 30, 30), (40, 180, 40), (50, 50, 190), (200, 200, 200)
QUARTERS = (RED, GREEN, BLUE, GREY)
"""Colours of the quarters of `scene`, RGB: top left, top right, bottom left, bottom right."""
TO_STORED = {
    1: None,
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}
"""EXIF orientation -> how the upright scene is turned before it is stored."""


def scene(width: int = 160, height: int = 96) -> PIL.Image.Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    for quarter, colour in enumerate(QUARTERS):
        row, column = divmod(quarter, 2)
        half_height, half_width = height // 2, width // 2
        pixels[row * half_height :, column * half_width :][:half_height, :half_width] = colour
    return PIL.Image.fromarray(pixels)


def quarters(image: npt.NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """The colours in the centres of the four quarters, RGB."""
    height, width = image.shape[:2]
    places = [(height // 4, width // 4), (height // 4, 3 * width // 4)]
    places += [(3 * height // 4, width // 4), (3 * height // 4, 3 * width // 4)]
    return [tuple(int(value) for value in image[place][::-1]) for place in places]


def is_scene(image: npt.NDArray[np.uint8], tolerance: int = 8) -> bool:
    return bool(np.abs(np.subtract(quarters(image), QUARTERS)).max() <= tolerance)


def write_exif_jpeg(path: Path, orientation: int) -> Path:
    turn = TO_STORED[orientation]
    stored = scene() if turn is None else scene().transpose(turn)
    exif = PIL.Image.Exif()
    exif[0x112] = orientation
    stored.save(path, "JPEG", exif=exif, quality=95)
    return path


def write_packets(path: Path, codec: str, size: tuple[int, int], packets: list[bytes]) -> Path:
    """Write compressed frames as they are, at 25 per second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        assert isinstance(video, av.VideoStream)
        video.width, video.height = size
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index, data in enumerate(packets):
            packet = av.Packet(data)
            packet.pts = packet.dts = index
            packet.time_base = Fraction(1, 25)
            packet.stream = video
            packet.is_keyframe = index == 0 or codec == "mjpeg"
            container.mux(packet)
    return path


@pytest.mark.parametrize("orientation", TO_STORED)
def test_motion_jpeg_with_exif(tmp_path: Path, orientation: int) -> None:
    # PyAV (18.1) does not know the kind of side data in which FFmpeg hands on EXIF.
    jpeg = write_exif_jpeg(tmp_path / "a.jpg", orientation).read_bytes()
    size = (96, 160) if orientation >= 5 else (160, 96)
    with open_source(write_packets(tmp_path / "a.avi", "mjpeg", size, [jpeg] * 3)) as source:
        frames = list(source.frames())
    assert len(frames) == 3
    assert all(is_scene(frame.image) for frame in frames)


def encoded(frames: int, gop: int) -> Iterator[bytes]:
    """Yield the H.264 packets of a scene that was stored turned by 90 degrees."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = 96, 160, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"bf": "0", "g": str(gop), "crf": "5", "sc_threshold": "0"}
    image = np.ascontiguousarray(np.asarray(scene().transpose(PIL.Image.Transpose.ROTATE_90)))
    for index in range(frames):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = index
        yield from map(bytes, encoder.encode(frame))
    yield from map(bytes, encoder.encode(None))


def test_an_orientation_in_h264_holds_until_the_next_keyframe(tmp_path: Path) -> None:
    # A display orientation SEI message (ITU-T H.264, D.1.27) comes with a keyframe and holds for the frames behind it.
    # FFmpeg attaches it to the keyframe only.
    turn = bytes.fromhex("0000000106 2f 03 180009 80")  # three quarter turns counter-clockwise, repeated
    packets = list(encoded(frames=8, gop=4))
    packets[0] = turn + packets[0]
    with open_source(write_packets(tmp_path / "a.ts", "libx264", (96, 160), packets)) as source:
        frames = list(source.frames())
    assert len(frames) == 8
    assert [frame.image.shape[:2] for frame in frames] == [(96, 160)] * 4 + [(160, 96)] * 4
    assert [is_scene(frame.image) for frame in frames] == [True] * 4 + [False] * 4


def named(path: Path, content: str) -> Path:
    """Write the scene in the format `content` under a name that may promise another one."""
    if content == "heic":
        pillow_heif.from_pillow(scene()).save(path, quality=95)
    elif content == "gif":
        scene().save(path, "GIF", save_all=True, append_images=[scene().rotate(180)], duration=100)
    else:
        scene().save(path, content, quality=95)
    return path


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("a.jpg", "heic", 1),  # what some programs make of a phone's photograph
        ("a.mov", "heic", 1),
        ("a", "heic", 1),
        ("a.heic", "jpeg", 1),
        ("a.heic", "avif", 1),
        ("a.png", "gif", 2),
    ],
)
def test_a_still_is_read_whatever_its_name_promises(tmp_path: Path, name: str, content: str, count: int) -> None:
    with open_source(named(tmp_path / name, content)) as source:
        frames = list(source.frames())
    assert len(frames) == count
    assert frames[0].file == (name if count == 1 else None)
    assert is_scene(frames[0].image, tolerance=60 if content == "gif" else 8)


def test_a_photograph_of_an_unknown_codec_is_one_line(tmp_path: Path) -> None:
    path = named(tmp_path / "a.heic", "heic")
    path.write_bytes(path.read_bytes().replace(b"hvc1", b"vvc1").replace(b"hvcC", b"vvcC"))
    with pytest.raises(SourceError, match=r"a\.heic cannot be read"):
        open_source(path)


@pytest.mark.parametrize("size", [(320, 180), (1280, 720)])
@pytest.mark.parametrize(("transfer", "signal"), [(16, pq), (18, hlg)])
def test_hdr_that_names_no_matrix_has_that_of_bt2020(
    tmp_path: Path, transfer: int, signal: Callable[[Float64], Float64], size: tuple[int, int]
) -> None:
    planes = limited(signal(to_bt2020(bars(*size, COLOURS_RGB) / 255)), 0.2627, 0.0593, 4)
    stored = [np.round(plane).astype("<u2") for plane in planes]
    path = write_video(tmp_path / "a.mkv", stored, size, "yuv444p10le", {"color_trc": transfer})
    with open_source(path) as source:
        image = next(source.frames()).image
    assert np.abs(centres(image) - COLOURS_RGB).mean() <= 2.5


def write_tracks(path: Path, tracks: list[tuple[str, int, tuple[int, int], Disposition]]) -> Path:
    """Write video tracks, each given by its encoder, number of frames, size and disposition."""
    with av.open(str(path), "w") as container:
        videos = []
        for codec, frames, (width, height), disposition in tracks:
            video = container.add_stream(codec, rate=25)
            assert isinstance(video, av.VideoStream)
            video.width, video.height = width, height
            video.pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
            video.disposition = disposition
            videos.append((video, frames))
        for video, frames in videos:
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(numbered_image(index, (video.width, video.height)), format="bgr24")
                frame.pts = index
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
    return path


@pytest.mark.parametrize(("codec", "suffix"), [("mjpeg", ".mkv"), ("mjpeg", ".mov"), ("png", ".mov")])
@pytest.mark.parametrize("default", [Disposition.default, Disposition(0)])
def test_a_thumbnail_beside_the_video_is_not_read(
    tmp_path: Path, codec: str, suffix: str, default: Disposition
) -> None:
    tracks = [(codec, 1, (320, 240), default), ("libx264", 10, (160, 96), Disposition(0))]
    with open_source(write_tracks(tmp_path / f"a{suffix}", tracks)) as source:
        assert [read_number(frame.image) for frame in source.frames()] == list(range(10))


def test_motion_jpeg_alone_is_a_video(tmp_path: Path) -> None:
    tracks = [("mjpeg", 5, (160, 96), Disposition(0)), ("mjpeg", 5, (320, 240), Disposition(0))]
    with open_source(write_tracks(tmp_path / "a.mkv", tracks)) as source:
        assert [frame.image.shape[:2] for frame in source.frames()] == [(240, 320)] * 5


def stream_part(folder: Path, first: int, start_s: float) -> bytes:
    """A second of a transport stream, whose frames are numbered from `first` and timed from `start_s`."""
    offset = {"output_ts_offset": f"{start_s:.3f}"}
    path = make_clip(folder / f"{first}.ts", frames=25, first=first, b_frames=2, audio_s=1.0, container_options=offset)
    return path.read_bytes()


@pytest.mark.parametrize("start_s", [5.0, 2**33 / 90_000 - 2.0, 30_000.0])
def test_a_transport_stream_whose_clock_wraps_or_starts_again(tmp_path: Path, start_s: float) -> None:
    # The clock has 33 bits, which last for 26.5 hours. FFmpeg takes each step back for the end of such a period.
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(stream_part(tmp_path, 25 * part, start_s + part * 1.0) for part in range(3)))
    path.write_bytes(path.read_bytes() + stream_part(tmp_path, 75, 1.0))
    with open_source(path) as source:
        frames = list(source.frames())
    assert [read_number(frame.image) for frame in frames] == list(range(100))
    assert frames[0].pts_s == pytest.approx(0.0 if start_s > 10 else start_s, abs=0.1)
    steps = np.diff([frame.pts_s for frame in frames])
    assert steps == pytest.approx([0.04] * 99, abs=0.001)


@pytest.mark.parametrize(("stored", "read"), [(Fraction(2), Fraction(2)), (Fraction(100), Fraction(1))])
def test_pixels_of_absurd_shape_are_read_as_square(tmp_path: Path, stored: Fraction, read: Fraction) -> None:
    # As stills, a few such frames of a high resolution would exhaust the memory.
    with open_source(make_clip(tmp_path / "a.mp4", frames=2, pixel_aspect=stored)) as source:
        assert [frame.pixel_aspect for frame in source.frames()] == [read] * 2


class Bytes(BaseHTTPRequestHandler):
    """Serves the bytes in `content`, and closes a connection if the client asks for it, as HTTP/1.1 says."""

    protocol_version = "HTTP/1.1"
    content: ClassVar[bytes]
    has_length: ClassVar[bool]
    """Whether it tells the length and serves ranges. Without a length, a response ends with its connection."""

    def do_GET(self) -> None:
        if not self.has_length:
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(self.content)
            return
        first = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
        body = self.content[first:]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{len(self.content) - 1}/{len(self.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has seen enough
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def served(content: bytes, *, has_length: bool = True) -> Iterator[str]:
    """Serve `content` on loopback and give its address."""
    handler = type("Serving", (Bytes,), {"content": content, "has_length": has_length})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/a.mp4"
        finally:
            server.shutdown()
            thread.join()


def test_a_recording_behind_http_whose_index_is_at_its_end_is_whole(tmp_path: Path) -> None:
    # FFmpeg (8.1) read the index up to the end, asked for the first frame on the connection that it had told the server
    # to close, and went on without this frame.
    clip = make_clip(tmp_path / "a.mp4", frames=25, size=(640, 400), grain=60)
    assert clip.stat().st_size > 400_000, "the index is not in the first bytes that are read"
    with served(clip.read_bytes()) as url, open_source(url) as source:
        assert [read_number(frame.image) for frame in source.frames()] == list(range(25))


@pytest.mark.parametrize(("part", "count"), [(1.0, 50), (0.5, None)])
def test_a_response_without_a_length_ends_where_the_server_closes(
    tmp_path: Path, part: float, count: int | None
) -> None:
    clip = make_clip(tmp_path / "a.mkv", frames=50, grain=60)
    content = clip.read_bytes()
    with served(content[: round(len(content) * part)], has_length=False) as url, open_source(url) as source:
        frames = source.frames()
        if count is None:
            with pytest.raises(SourceError, match=r"ends at .* of 2\.0 s: the file is cut off"):
                list(frames)
        else:
            assert len(list(frames)) == count


@pytest.mark.parametrize("scheme", ["http", "rtsp", "rtmp"])
@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("[::1", "invalid host name"),
        ("::1]", "invalid host name"),
        ("[not-an-address]", "invalid host name"),
        ("host:99999", "invalid port"),
        ("host:port", "invalid port"),
        ("", "no host name"),
    ],
)
def test_a_malformed_host_is_one_line_without_secrets(scheme: str, host: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as raised:
        open_source(f"{scheme}://me:hunter2@{host}/live/x?token=SECRET")
    assert "SECRET" not in str(raised.value)
    assert "hunter2" not in str(raised.value)


def claiming(path: Path, width: int, height: int) -> Path:
    """Write a PNG file that claims this size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(
    ("side", "max_pixels", "reason"),
    [
        (14_000, 190_000_000, r"196,?000,?000 pixels exceed `max_pixels` \(190,000,000\)"),
        (14_000, 200_000_000, "damaged"),  # it is small enough, and has no pixels
        (100_000, 200_000_000, r"pixels exceed `max_pixels` \(200,000,000\)"),
    ],
)
def test_the_limit_of_pixels_is_ours(tmp_path: Path, side: int, max_pixels: int, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        open_source(Input(claiming(tmp_path / "a.png", side, side), max_pixels=max_pixels))


@pytest.mark.parametrize(("transfer", "signal"), [(16, pq), (18, hlg)])
def test_an_hdr_photograph_looks_as_the_same_scene_in_sdr(
    tmp_path: Path, transfer: int, signal: Callable[[Float64], Float64]
) -> None:
    values = np.round(signal(to_bt2020(bars(320, 180, COLOURS_RGB) / 255)) * 65535).astype("<u2")
    picture = pillow_heif.from_bytes("RGB;16", (320, 180), values.tobytes())
    picture.save(
        tmp_path / "a.hif",
        quality=95,
        chroma=444,
        color_primaries=9,
        transfer_characteristics=transfer,
        matrix_coefficients=9,
    )
    with open_source(tmp_path / "a.hif") as source:
        image = next(source.frames()).image
    assert image.shape == (180, 320, 3)
    assert np.abs(centres(image) - COLOURS_RGB).mean() <= 3
