"""Videos that are cut off or overwritten, and files that are refused."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from streampose.errors import SourceError
from streampose.sources.open import open_source
from tests.clips import make_clip, numbered_image
from tests.sources.helpers import assert_given_back, cut, held, numbers, overwrite, packets, read, write_picture


class TestDamagedVideo:
    @pytest.mark.parametrize("share", [0.35, 0.6, 0.95])
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv"])
    def test_cut_off(self, tmp_path: Path, suffix: str, share: float) -> None:
        path = tmp_path / f"a{suffix}"
        options = {"movflags": "faststart"} if suffix == ".mp4" else {}
        make_clip(path, frames=150, container_options=options)
        whole, error = read(path)
        assert error is None
        size = round(path.stat().st_size * share)
        complete = sum(offset + length <= size for offset, length in packets(path))
        frames, error = read(cut(path, size))
        assert 20 < complete < 150
        # FFmpeg's Matroska reader gives a block up when what follows it is missing.
        assert len(frames) in ((complete, complete - 1) if suffix == ".mkv" else (complete,))
        assert numbers(frames) == list(range(len(frames)))
        for frame, original in zip(frames, whole, strict=False):
            np.testing.assert_array_equal(frame.image, original.image)
            assert frame.pts_s == original.pts_s
        if complete < 125:
            assert error is not None
            assert str(error).endswith("of 6.0 s: the file is cut off")
        elif suffix != ".mkv":
            assert error is not None
            assert "a packet is incomplete" in str(error) or "cut off" in str(error)

    def test_cut_off_without_its_index(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4")
        with pytest.raises(SourceError, match=r"a\.mp4 is not a video, or its beginning or index is missing") as caught:
            open_source(cut(path, path.stat().st_size // 2))
        assert isinstance(caught.value.__cause__, av.InvalidDataError)

    @pytest.mark.parametrize("bad", [0, 12, 20, 26, 27, 28, 29])
    def test_every_other_frame_comes_and_then_the_error(self, tmp_path: Path, bad: int) -> None:
        # Keyframes only, so that one bad packet is one lost picture; also among the last, which the flush brings.
        path = make_clip(tmp_path / "a.mp4", gop=1)
        offset, size = packets(path)[bad]
        overwrite(path, offset, size)
        frames, error = read(path)
        assert numbers(frames) == [k for k in range(30) if k != bad]
        assert [frame.index for frame in frames] == list(range(29))
        assert [frame.pts_s for frame in frames] == [k / 25 for k in range(30) if k != bad]
        assert error is not None
        assert "is damaged near" in str(error)
        assert isinstance(error.__cause__, av.FFmpegError)

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
    def test_overwritten_in_the_middle(self, tmp_path: Path, suffix: str) -> None:
        path = make_clip(tmp_path / f"a{suffix}", frames=100, gop=10, grain=30)
        whole, _ = read(path)
        offset, size = packets(path)[45]
        assert size > 2000
        # H.264 has no checksum: what is overwritten further back is often decoded without a complaint.
        overwrite(path, offset + size // 5, 150)
        frames, error = read(path)
        times_s = [frame.pts_s for frame in frames]
        originals = {frame.pts_s: frame.image for frame in whole}
        assert times_s[:45] == [frame.pts_s for frame in whole[:45]]
        assert times_s[-50:] == [frame.pts_s for frame in whole[50:]]
        for frame in frames[:45] + frames[-50:]:
            np.testing.assert_array_equal(frame.image, originals[frame.pts_s])
        assert whole[45].pts_s not in times_s
        assert error is not None
        assert "damaged near 1." in str(error)

    def test_nothing_good_in_it(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4", gop=1, frames=5)
        for offset, size in packets(path):
            overwrite(path, offset, size)
        with pytest.raises(SourceError, match=r"a\.mp4 has no frame that can be decoded \(.*\)$"):
            open_source(path)

    @pytest.mark.parametrize("suffix", [".ts", ".h264"])
    def test_begun_between_two_keyframes_is_not_damaged(self, tmp_path: Path, suffix: str) -> None:
        path = make_clip(tmp_path / f"a{suffix}", frames=60, gop=20, grain=30)
        data = path.read_bytes()
        start = len(data) // 9 // 188 * 188
        path.write_bytes(data[start:])
        frames, error = read(path)
        assert error is None
        assert numbers(frames) == list(range(20, 60))


class TestRefusedFiles:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("empty.mp4", b"", r"empty\.mp4 is empty \(0 bytes\)"),
            ("empty.png", b"", r"empty\.png is empty \(0 bytes\)"),
            ("text.mp4", b"not a video at all\n" * 40, r"text\.mp4 is not a video"),
            ("notes.txt", b"not a video at all\n" * 40, r"notes\.txt is not a supported video format"),
            ("noise.mkv", np.random.default_rng(0).bytes(5000), r"noise\.mkv is "),
            ("text.jpg", b"not a picture", r"text\.jpg cannot be read: damaged or not a still"),
        ],
    )
    def test_one_line_that_names_the_file(self, tmp_path: Path, name: str, content: bytes, message: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match=message) as caught:
            open_source(str(tmp_path / name))
        assert "\n" not in str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        write_picture(tmp_path / "holiday.jpg", 0)
        with pytest.raises(SourceError, match=r"holyday\.jpg does not exist; did you mean .*holiday\.jpg\?"):
            open_source(str(tmp_path / "holyday.jpg"))
        with pytest.raises(SourceError, match=r"a\.mp4 does not exist: the folder .*nowhere does not exist$"):
            open_source(str(tmp_path / "nowhere" / "a.mp4"))
        with pytest.raises(SourceError, match="cannot be opened: Not a directory"):
            open_source(str(tmp_path / "holiday.jpg" / "a.mp4"))

    def test_a_broken_link(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").symlink_to("gone.mp4")
        with pytest.raises(SourceError, match=r"a\.mp4 is a broken link: gone\.mp4 does not exist$"):
            open_source(tmp_path / "a.mp4")

    def test_names_that_no_file_can_have(self) -> None:
        with pytest.raises(SourceError, match="cannot be opened: File name too long"):
            open_source("a" * 5000)
        with pytest.raises(SourceError, match="null byte"):
            open_source("a\0b")

    def test_no_pictures(self, tmp_path: Path) -> None:
        make_clip(tmp_path / "a.mp4", frames=1)
        for text in (str(tmp_path), str(tmp_path / "*.png"), str(tmp_path / "*.mp4")):
            with pytest.raises(SourceError, match=r"no stills found \(recognized by suffix: .*\.jpg"):
                open_source(text)

    def test_neither_file_nor_folder(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.mp4")
        for path in (tmp_path / "pipe.mp4", Path("/dev/zero")):
            with pytest.raises(SourceError, match="neither a file nor a folder"):
                open_source(path)

    @pytest.fixture
    def nobody(self) -> Iterator[None]:
        """Without root's right to read everything."""
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        yield
        os.seteuid(before)

    @pytest.mark.usefixtures("nobody")
    @pytest.mark.parametrize("name", ["a.mp4", "a.png", "folder"])
    def test_no_permission(self, name: str) -> None:
        # Not under tmp_path, which is closed to others as a whole.
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            path = Path(folder) / name
            if path.suffix:
                path.write_bytes(b"content")
            else:
                path.mkdir()
            path.chmod(0)
            with pytest.raises(SourceError, match=rf"{name} cannot be (opened|read): Permission denied"):
                open_source(path)
            Path(folder).chmod(0o100)
            with pytest.raises(SourceError, match=r"b\.mp4 does not exist$"):
                open_source(Path(folder) / "b.mp4")
            Path(folder).chmod(0o400)
            with pytest.raises(SourceError, match="cannot be opened: Permission denied"):
                open_source(f"{folder}/{name[:1]}*")
            Path(folder).chmod(0o700)

    def test_sound_with_a_cover_picture(self, tmp_path: Path) -> None:
        path = tmp_path / "song.mp3"
        with av.open(str(path), "w") as container:
            sound = container.add_stream("mp3", rate=16000, layout="mono")
            cover = container.add_stream("mjpeg", rate=1)
            assert isinstance(cover, av.VideoStream)
            assert isinstance(sound, av.AudioStream)
            cover.width, cover.height, cover.pix_fmt = 192, 120, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
            picture = av.VideoFrame.from_ndarray(numbered_image(1), format="bgr24")
            picture.pts = 0
            container.mux(cover.encode(picture))
            container.mux(cover.encode())
            for at in range(0, 16000, 1152):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
                silence.sample_rate, silence.pts = 16000, at
                container.mux(sound.encode(silence))
            container.mux(sound.encode())
        with pytest.raises(SourceError, match=r"song\.mp3: no video stream"):
            open_source(path)

    def test_a_codec_without_a_decoder(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4")
        path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
        with pytest.raises(SourceError, match="no decoder for its video"):
            open_source(path)

    def test_a_failed_opening_leaves_no_file_open(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.mp4")
        path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
        before = held()
        with pytest.raises(SourceError):
            open_source(path)
        assert_given_back(before)

    @pytest.mark.parametrize("name", ["list.m3u8", "list.mp4"])
    def test_playlists_open_neither_network_nor_files(self, tmp_path: Path, name: str) -> None:
        make_clip(tmp_path / "inside.ts")
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.2)
            address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
            for entry in (address, str(tmp_path / "inside.ts"), "inside.ts"):
                text = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{entry}\n#EXT-X-ENDLIST\n"
                (tmp_path / name).write_text(text)
                with pytest.raises(SourceError, match=r"is not a video|refused"):
                    open_source(str(tmp_path / name))
            with pytest.raises(TimeoutError):
                server.accept()

    def test_concat_scripts_open_no_files(self, tmp_path: Path) -> None:
        make_clip(tmp_path / "inside.ts")
        for entry in ("inside.ts", str(tmp_path / "inside.ts")):
            (tmp_path / "script.mp4").write_text(f"ffconcat version 1.0\nfile '{entry}'\n")
            with pytest.raises(SourceError, match="refused"):
                open_source(str(tmp_path / "script.mp4"))
