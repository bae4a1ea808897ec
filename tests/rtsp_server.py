"""A GStreamer RTSP server for tests, run by the system's Python, which packages its bindings: see `tests.servers`."""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - after the versions

BITS = 12
DARK, LIGHT = 40, 215
PATCHES_YUV = ((82, 189, 107), (141, 92, 80), (95, 108, 204))
"""The colours of `tests.clips.PATCHES_BGR` in BT.601."""

ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast bitrate=2000 key-int-max={fps} sliced-threads=false"
    " threads=1 ! video/x-h264,profile=constrained-baseline ! rtph264pay name=pay0 pt=96 config-interval=-1",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast bitrate=2000 key-int-max={fps}"
    " ! rtph265pay name=pay0 pt=96 config-interval=-1",
    "jpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
    "vp8": "vp8enc deadline=1 keyframe-max-dist={fps} ! rtpvp8pay name=pay0 pt=96",
}


def numbered_i420(number: int, width: int, height: int) -> bytes:
    """Return the picture of `tests.clips.numbered_image` in planar 4:2:0; width and height even."""
    bits = [number >> min(x * BITS // width, BITS - 1) & 1 for x in range(width)]
    row = bytes(LIGHT if bit else DARK for bit in bits)
    inverted = bytes(DARK if bit else LIGHT for bit in bits)
    third = height // 3

    def patches(channel: int, length: int) -> bytes:
        return bytes(PATCHES_YUV[x * 3 // length][channel] for x in range(length))

    luma = row * third + inverted * third + patches(0, width) * (height - 2 * third)
    half_third = third // 2 * 2
    chroma = b""
    for channel in (1, 2):
        neutral = bytes([128]) * (width // 2)
        chroma += neutral * half_third + patches(channel, width // 2) * (height // 2 - half_third)
    return luma + chroma


class Camera(GstRtspServer.RTSPMediaFactory):
    """Plays pictures whose number is the machine's monotonic time in frames, one encoder for all who watch."""

    def __init__(self, width: int, height: int, fps: int, codec: str) -> None:
        super().__init__()
        self._width, self._height, self._fps = width, height, fps
        caps = f"video/x-raw,format=I420,width={width},height={height},framerate={fps}/1"
        encoder = ENCODERS[codec].format(fps=fps)
        self.set_launch(f"( appsrc name=pictures is-live=true do-timestamp=true format=time caps={caps} ! {encoder} )")
        self.set_shared(True)
        self.connect("media-configure", self._configure)

    def _configure(self, _factory: object, media: GstRtspServer.RTSPMedia) -> None:
        media.get_element().get_by_name("pictures").connect("need-data", self._push)

    def _push(self, pictures: Gst.Element, _length: int) -> None:
        # Behind the wait, which may last as long as the server is stopped.
        time.sleep(1 / self._fps - time.monotonic() % (1 / self._fps))
        number = int(time.monotonic() * self._fps)
        data = numbered_i420(number % 2**BITS, self._width, self._height)
        pictures.emit("push-buffer", Gst.Buffer.new_wrapped(data))


class Recorder(GstRtspServer.RTSPMediaFactory):
    """Takes H.264 and writes each recording to a file of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._files = (path for n in itertools.count(1) if not (path := folder / f"record-{n}.ts").exists())
        self.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        self.set_launch(
            "( rtph264depay name=depay0 ! h264parse ! mpegtsmux"
            " ! filesink name=file location=/dev/null buffer-mode=unbuffered async=false sync=false )"
        )
        self.connect("media-configure", self._configure)

    def _configure(self, _factory: object, media: GstRtspServer.RTSPMedia) -> None:
        media.get_element().get_by_name("file").set_property("location", str(next(self._files)))


def protect(server: GstRtspServer.RTSPServer, user: str, password: str, digest: bool) -> dict[str, object]:
    """Let only `user` in; return what every factory has to be told."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    if digest:
        auth.set_supported_methods(2)  # GST_RTSP_AUTH_DIGEST
        auth.add_digest(user, password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    return {"role": "user"}


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    for number in ("--port", "--width", "--height", "--fps"):
        parser.add_argument(number, type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--codec", choices=ENCODERS, required=True)
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--digest", action="store_true")
    arguments = parser.parse_args()

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address(arguments.host)
    server.set_service(str(arguments.port))
    audio = GstRtspServer.RTSPMediaFactory()
    audio.set_launch("( audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8 )")
    factories = {
        "/cam": Camera(arguments.width, arguments.height, arguments.fps, arguments.codec),
        "/record": Recorder(arguments.folder),
        "/audio": audio,
    }
    if arguments.user is not None:
        protect(server, arguments.user, arguments.password, arguments.digest)
    for path, factory in factories.items():
        if arguments.user is not None:
            permissions = GstRtspServer.RTSPPermissions()
            permissions.add_role("user")
            permissions.add_permission_for_role("user", "media.factory.access", True)
            permissions.add_permission_for_role("user", "media.factory.construct", True)
            factory.set_permissions(permissions)
        server.get_mount_points().add_factory(path, factory)
    server.attach(None)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
