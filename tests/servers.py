"""Real servers, each a child process on loopback with ports of its own, to be killed, stopped and started again.

A server is a context manager; `kill`, `pause` (SIGSTOP) and `resume` act on it, `restart` starts it again on the same
ports. None of them outlives the tests, not even those of a killed run. The pictures that they and `Publisher` send
carry a number (see `tests.clips`) that tells when they were made: see `age_s`.

Run as a program this file is two of those children: `publish` and `relay`.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.etree import ElementTree

import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
"""The interpreter for which systems package GStreamer's bindings."""
NUMBERS = 2**12
"""A picture's number is the machine's monotonic time in frames, modulo this (see `tests.clips`)."""
READY_WITHIN_S = 10.0


def age_s(number: int, fps: int) -> float:
    """Return how long ago the picture `number` was made by a server that makes `fps` a second."""
    return ((time.monotonic() * fps - number) % NUMBERS) / fps


def free_port() -> int:
    """Return a TCP port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_open(port: int, within_s: float = READY_WITHIN_S, host: str = "127.0.0.1") -> None:
    """Wait until something listens on the TCP `port` of `host`."""
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection((host, port), 1.0).close()
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)
        else:
            return


def skip_without(what: str, there: bool) -> None:
    """Skip a test that needs `what`; where CI is set, fail it."""
    if not there:
        if os.environ.get("CI"):
            pytest.fail(f"no {what} here")
        pytest.skip(f"no {what} here")


class Namespace:
    """A host of the test's own: a network namespace behind a link that can be taken down. Needs root."""

    ADDRESS = "10.213.87.2"

    def __init__(self) -> None:
        self.name = f"streampose-{os.getpid()}"
        self._near, self._far = f"sp{os.getpid()}a", f"sp{os.getpid()}b"

    def link(self, state: str) -> None:
        """Take the host's end of the link `up` or `down`, as a pulled cable does."""
        _ip("-n", self.name, "link", "set", self._far, state)

    def __enter__(self) -> Self:
        _ip("netns", "add", self.name)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.name)
        _ip("addr", "add", "10.213.87.1/24", "dev", self._near)
        _ip("-n", self.name, "addr", "add", f"{self.ADDRESS}/24", "dev", self._far)
        _ip("link", "set", self._near, "up")
        self.link("up")
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "delete", self.name)  # the link goes with it


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


class Server:
    """A child process that listens on `ports` (or on none)."""

    host = "127.0.0.1"

    def __init__(self, argv: Sequence[str], folder: Path, ports: Sequence[int] = ()) -> None:
        self._argv = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        self._ports = ports
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        """Where its log and everything else that it writes lies."""
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        """The process id of the running child."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What the child has written to stdout and stderr, since its first start."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start the child and wait until it listens."""
        assert not self.running
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            for port in self._ports:
                wait_until_open(port, host=self.host)
        except OSError:
            self.kill()
            pytest.fail(f"{self._argv[4:]} does not listen: {self.log[-1000:]}")

    def kill(self) -> None:
        """End the child without a word (SIGKILL), paused or not; safe twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(READY_WITHIN_S)

    def pause(self) -> None:
        """Stop the child: the kernel goes on accepting connections and data for it, and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused child go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill the child and start it on the same ports."""
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


class RtmpServer(Server):
    """nginx with its RTMP module: whatever is published can be played by RTMP, and as HLS after some seconds.

    The application `live` is open; `closed` lets only those publish and play who add `?pass=secret`.
    """

    MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")

    def __init__(self, folder: Path) -> None:
        skip_without("nginx with its RTMP module", bool(shutil.which("nginx")) and self.MODULE.is_file())
        self.port, self.http_port = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hls").mkdir(exist_ok=True)
        (folder / "nginx.conf").write_text(self._configuration(folder))
        nginx = shutil.which("nginx") or "nginx"
        super().__init__(
            [nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")],
            folder,
            (self.port, self.http_port),
        )

    def url(self, name: str, app: str = "live") -> str:
        """The address under which `name` is published and played."""
        return f"rtmp://127.0.0.1:{self.port}/{app}/{name}"

    def hls_url(self, name: str) -> str:
        """The address of the HLS playlist of what is published as `name` in `live`."""
        return f"http://127.0.0.1:{self.http_port}/hls/{name}.m3u8"

    def web_url(self, path: str) -> str:
        """The HTTP address of a file that the test puts at `path` below `folder`."""
        return f"http://127.0.0.1:{self.http_port}/{path}"

    def streams(self) -> dict[str, dict[str, int]]:
        """Return, for every stream of every application, `publishers`, `players` and `bytes_in`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/stat", timeout=5) as answer:
            root = ElementTree.fromstring(answer.read())
        found: dict[str, dict[str, int]] = {}
        for stream in root.iter("stream"):
            clients = stream.findall("client")
            publishers = sum(client.find("publishing") is not None for client in clients)
            found[stream.findtext("name") or ""] = {
                "publishers": publishers,
                "players": len(clients) - publishers,
                "bytes_in": int(stream.findtext("bytes_in") or 0),
            }
        return found

    def _configuration(self, folder: Path) -> str:
        live = f"""live on; hls on; hls_path {folder}/hls; hls_fragment 1s; hls_playlist_length 6s;
            wait_key on; drop_idle_publisher 10s;"""
        ask = f"on_publish http://127.0.0.1:{self.http_port}/ask; on_play http://127.0.0.1:{self.http_port}/ask;"
        temporary = "\n".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return f"""
            load_module {self.MODULE};
            daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log info;
            events {{ worker_connections 128; }}
            rtmp {{
                server {{
                    listen 127.0.0.1:{self.port};
                    chunk_size 4096; max_message 16M;
                    application live {{ {live} }}
                    application closed {{ live on; {ask} }}
                }}
            }}
            http {{
                access_log off; {temporary}
                types {{ application/vnd.apple.mpegurl m3u8; video/mp2t ts; video/mp4 mp4; }}
                server {{
                    listen 127.0.0.1:{self.http_port};
                    root {folder};
                    location /stat {{ rtmp_stat all; }}
                    location /ask {{ if ($arg_pass != secret) {{ return 403; }} return 200; }}
                }}
            }}
        """


class RtspServer(Server):
    """GStreamer's RTSP server: `cam` plays numbered H.264 pictures, `record` takes an H.264 stream.

    Each recording becomes a file `record-N.ts` in `folder`, written as it comes. `audio` plays a tone and no picture.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        size: tuple[int, int] = (640, 360),
        fps: int = 25,
        codec: str = "h264",
        user: str | None = None,
        password: str = "",
        digest: bool = False,
        namespace: Namespace | None = None,
    ) -> None:
        """Start it, in `namespace` where one is given; with `user` everything needs that name and the password, by
        Basic or Digest authentication.
        """
        skip_without("GStreamer RTSP server", has_gstreamer())
        self.port = free_port() if port is None else port
        self.fps = fps
        script = Path(__file__).with_name("rtsp_server.py")
        argv = [SYSTEM_PYTHON, str(script), "--port", str(self.port), "--folder", str(folder)]
        argv += ["--width", str(size[0]), "--height", str(size[1]), "--fps", str(fps), "--codec", codec]
        if namespace is not None:
            self.host = namespace.ADDRESS
            argv = ["ip", "netns", "exec", namespace.name, *argv, "--host", self.host]
        if user is not None:
            argv += ["--user", user, "--password", password] + ["--digest"] * digest
        super().__init__(argv, folder, (self.port,))

    def url(self, name: str = "cam", userinfo: str = "") -> str:
        """The address of `name`; `userinfo` is `user:password` as the user would write it."""
        return f"rtsp://{userinfo}{'@' if userinfo else ''}{self.host}:{self.port}/{name}"

    def recordings(self) -> list[Path]:
        """The files of all recordings so far, in order."""
        return sorted(self.folder.glob("record-*.ts"), key=lambda path: int(path.stem.removeprefix("record-")))


@functools.cache
def has_gstreamer() -> bool:
    """Whether the system's Python has the bindings of GStreamer's RTSP server."""
    code = "import gi; gi.require_version('GstRtspServer', '1.0')"
    return (
        Path(SYSTEM_PYTHON).exists()
        and subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, check=False).returncode == 0
    )


class Publisher(Server):
    """Sends numbered H.264 pictures to an RTMP address; ends when it is refused or the server goes away."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        size: tuple[int, int] = (640, 360),
        fps: int = 25,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        self.fps = fps
        argv = [sys.executable, "-m", "tests.servers", "publish", url, "--pixel-aspect", str(pixel_aspect)]
        argv += ["--width", str(size[0]), "--height", str(size[1]), "--fps", str(fps)]
        super().__init__(argv, folder)


class Relay(Server):
    """Passes TCP connections on to `target`; what it is sent while paused waits, and arrives when it is resumed.

    With `tls` it is spoken to by TLS, and shows a certificate that it has made itself.
    """

    def __init__(self, folder: Path, target: int, *, tls: bool = False) -> None:
        self.port = free_port()
        argv = [sys.executable, "-m", "tests.servers", "relay", "--port", str(self.port), "--target", str(target)]
        if tls:
            skip_without("openssl", shutil.which("openssl") is not None)
            folder.mkdir(parents=True, exist_ok=True)
            certificate = folder / "certificate.pem"
            make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
            files = ["-keyout", str(certificate), "-out", str(folder / "public.pem")]
            subprocess.run([*make, *files], check=True, capture_output=True, timeout=20)
            with certificate.open("a") as both:
                both.write((folder / "public.pem").read_text())
            argv += ["--certificate", str(certificate)]
        super().__init__(argv, folder, (self.port,))


def _publish(url: str, width: int, height: int, fps: int, pixel_aspect: Fraction) -> None:
    import av

    from tests.clips import numbered_image

    with av.open(url, "w", format="flv") as container:
        options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "g": str(fps),
            "x264-params": "sliced-threads=0:threads=1",
        }
        video = container.add_stream("libx264", rate=fps, options=options)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.sample_aspect_ratio = pixel_aspect
        first = tick = int(time.monotonic() * fps)
        while True:
            tick = max(tick + 1, int(time.monotonic() * fps))
            time.sleep(max(0.0, tick / fps - time.monotonic()))
            frame = av.VideoFrame.from_ndarray(numbered_image(tick % NUMBERS, (width, height)), format="bgr24")
            frame.pts = tick - first
            container.mux(video.encode(frame))


async def _relay(port: int, target: int, certificate: Path | None) -> None:
    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, back), copy(there, writer))

    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    async with await asyncio.start_server(serve, "127.0.0.1", port, ssl=tls) as server:
        await server.serve_forever()


def _main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    publish = commands.add_parser("publish")
    publish.add_argument("url")
    for number in ("--width", "--height", "--fps"):
        publish.add_argument(number, type=int, required=True)
    publish.add_argument("--pixel-aspect", type=Fraction, required=True)
    relay = commands.add_parser("relay")
    for number in ("--port", "--target"):
        relay.add_argument(number, type=int, required=True)
    relay.add_argument("--certificate", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "publish":
        _publish(arguments.url, arguments.width, arguments.height, arguments.fps, arguments.pixel_aspect)
    else:
        asyncio.run(_relay(arguments.port, arguments.target, arguments.certificate))


if __name__ == "__main__":
    _main()
