"""Encodes the frames of a video file as H.264. The encoder can begin afresh within one stream, so that what follows
does not depend on what was encoded before.

Knows nothing about where frames come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from heapq import heappop, heappush

# isort: split
import av
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from streampose.sinks.encode import Canvas

ENCODER = {"preset": "veryfast", "crf": "20", "forced-idr": "1", "x264-params": "cpu-independent=1"}
"""`veryfast` takes 1.4 times as long as `superfast` and halves the file size. `medium` takes 2.5 times as long as
`veryfast` and saves another 2 %. At normal viewing distance, CRF 20 is indistinguishable from the drawn frame.
With `cpu-independent`, the same frames give the same file, in the same time; otherwise x264's estimates vary a little
from one encoding to the next."""

REORDERED = 2
"""How many frames x264 delays decoding by, to reorder frames, with these settings."""


class Encoder:
    """The encoder of a video stream."""

    def __init__(
        self, container: OutputContainer, canvas: Canvas, *, time_base: Fraction, rate: Fraction, keyframe_every: int
    ) -> None:
        """Add a stream to `container`, before its encoding starts.

        Args:
            canvas: makes the frames.
            time_base: seconds per tick of the frames.
            rate: nominal frames per second, for the rate control.
            keyframe_every: maximum frames between two keyframes.
        """
        self._options = ENCODER | {"g": str(keyframe_every)}
        self._canvas = canvas
        self._time_base = time_base
        self._rate = rate
        self._stream = container.add_stream("libx264", rate=rate, options=self._options)
        canvas.set_up(self._stream.codec_context)
        self._stream.codec_context.time_base = time_base
        self._context: VideoCodecContext = self._stream.codec_context
        self._count = 0
        """Packets so far."""
        self._times_s: list[Fraction] = []
        """Times of the latest packets that are no decoding times yet, as a heap."""
        self.first_dts: list[int] = []
        """Decoding times of the first packets, in ticks."""

    def encode(self, frame: VideoFrame) -> Sequence[Packet[Stream]]:
        """Return the packets that are ready after a frame. Times of frames increase."""
        return self._timed(self._context.encode(frame))

    def finish(self) -> Sequence[Packet[Stream]]:
        """Return the packets of the frames that were held back."""
        return self._timed(self._context.encode(None))

    def begin_afresh(self) -> Sequence[Packet[Stream]]:
        """Return the packets of the frames that were held back. The next frame is encoded as if it were the first.

        Call it behind at least `REORDERED` + 1 frames.
        """
        packets = self.finish()
        fresh = av.CodecContext.create("libx264", "w")
        assert isinstance(fresh, VideoCodecContext)
        self._canvas.set_up(fresh)
        fresh.time_base, fresh.framerate = self._time_base, self._rate
        fresh.bit_rate, fresh.bit_rate_tolerance = 0, 128_000  # as PyAV sets up streams
        fresh.flags = self._stream.codec_context.flags
        fresh.options = dict(self._options)
        self._context = fresh
        return packets

    def copied(self, packet: Packet[Stream]) -> Packet[Stream]:
        """Return a packet of an earlier encoder for this stream as a packet of this one. Set `first_dts` before the
        first one, and call `begin_afresh` behind the last one.
        """
        if self._count < REORDERED:
            packet.dts = round(self.first_dts[self._count] * self._time_base / packet.time_base)
        return self._timed([packet])[0]

    def _timed(self, packets: Sequence[Packet[Stream]]) -> Sequence[Packet[Stream]]:
        """Give packets their stream and decoding times. An encoder that began afresh does not know what precedes."""
        for packet in packets:
            assert packet.pts is not None
            heappush(self._times_s, packet.pts * packet.time_base)
            if self._count >= REORDERED:
                packet.dts = round(heappop(self._times_s) / packet.time_base)
            elif len(self.first_dts) < REORDERED:
                assert packet.dts is not None
                self.first_dts.append(packet.dts)
            self._count += 1
            packet.stream = self._stream
        return packets
