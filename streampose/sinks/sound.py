"""The sound of a recording, copied packet by packet into another container. Nothing is decoded."""

from __future__ import annotations

import io
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from math import inf

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from streampose.errors import describe
from streampose.sources.decode import late_start_s, open_recording, packets_of, video_stream
from streampose.sources.recorded import PICTURES_PER_S
from streampose.sources.source import Reading

log = logging.getLogger("streampose")

CUT_AFTER_S = 1.0
"""When the recording's pictures go on for longer than this behind the last written one, the run was left early."""

SILENT_AFTER_S = 60.0
"""A track without a packet in so many seconds is left out: MP4 keeps all packets in memory until each track has one."""


_JUMP_S = 1
"""Time that goes back by more is another recording's, joined behind the first; as for the pictures."""

MAX_EARLY_PACKETS = 1000
"""20 s of AAC: sound that waits for longer for the pictures it belongs to is left out."""


@dataclass
class _Track:
    target: AudioStream
    strip_adts: BitStreamFilterContext | None
    """Set where each packet has a header of its own (AAC in MPEG-TS) that the target's container does not want."""
    last_dts: int | None = None
    is_damaged: bool = False
    """Whether that has been said."""


class Sound:
    """The sound tracks of one recording on their way into a container; end quietly where the recording is damaged."""

    def __init__(self, path: str, output: OutputContainer, name: str) -> None:
        """Add the sound tracks of the recording at `path` to `output`, which must not have started.

        A track that the container cannot hold is left out with a warning that names the file as `name`. Raises
        `av.FFmpegError` when the recording cannot be opened.
        """
        first = _first_packets(path)
        self._output = output
        self._name = name
        self._input = open_recording(path)
        self._tracks: dict[int, _Track] = {}
        for stream in self._input.streams.audio:
            if stream.codec_context is None:
                log.warning("%s goes without a sound track whose codec this FFmpeg does not know", name)
                continue
            codec = stream.codec_context.name
            if stream.index not in first:
                log.warning("%s goes without a sound track that is silent for %.0f s", name, SILENT_AFTER_S)
            elif not _holds(output.format.name, stream):
                log.warning(
                    "%s goes without its %s sound, which its container cannot hold; others are .mkv .mov .mp4",
                    name,
                    codec,
                )
            else:
                try:
                    self._tracks[stream.index] = _add(stream, output, first[stream.index])
                except (av.FFmpegError, ValueError) as error:
                    log.warning("%s goes without its %s sound: %s", name, codec, describe(error))
        self._packets = self._read()
        self._waiting: tuple[float, Packet[Stream]] | None = None

    def copy_until(self, time_s: float) -> None:
        """Copy what begins before `time_s` of the recording's own time."""
        for _, packet in self._before(time_s):
            self._copy(packet)

    def finish(self, end_s: float) -> None:
        """Copy the rest, but only up to `end_s`, the end of the last picture, where the recording's pictures go on."""
        behind: list[Packet[Stream]] = []
        for time_s, packet in self._before(inf):
            if packet.stream.index not in self._tracks:
                if time_s > end_s + CUT_AFTER_S:
                    return
            elif time_s < end_s:
                self._copy(packet)
            else:
                behind.append(packet)
        for packet in behind:
            self._copy(packet)

    def close(self) -> None:
        """Let go of the recording; safe twice."""
        self._input.close()

    def _read(self) -> Iterator[tuple[float, Packet[Stream]]]:
        """Yield the packets of the tracks, and of the pictures to tell where those end, with their times."""
        if not self._tracks:
            return
        pictures = video_stream(self._input, Reading())
        parts = _Parts(pictures, late_start_s(self._input))
        try:
            for packet in packets_of(self._input, *(self._input.streams[index] for index in self._tracks), pictures):
                for shifted in parts.placed(packet):
                    time_s = _time_s(shifted)
                    if time_s is not None:
                        yield time_s, shifted
        except av.FFmpegError as error:
            log.debug("the sound ends at a damaged place: %s", describe(error))

    def _before(self, time_s: float) -> Iterator[tuple[float, Packet[Stream]]]:
        while True:
            waiting = self._waiting or next(self._packets, None)
            if waiting is None or waiting[0] >= time_s:
                self._waiting = waiting
                return
            self._waiting = None
            yield waiting

    def _copy(self, packet: Packet[Stream]) -> None:
        track = self._tracks.get(packet.stream.index)
        if track is None:
            return
        if track.last_dts is not None and packet.dts is not None and packet.dts <= track.last_dts:
            return  # the muxer refuses a time that does not grow
        track.last_dts = packet.dts
        time_base = packet.time_base
        try:
            stripped = [packet] if track.strip_adts is None else track.strip_adts.filter(packet)
        except av.FFmpegError as error:
            self._skip(track, error)
            return
        for copied in stripped:
            copied.time_base = time_base
            copied.stream = track.target
            try:
                self._output.mux_one(copied)
            except (av.InvalidDataError, av.ArgumentError) as error:  # of the packet; a full disk is another one
                self._skip(track, error)

    def _skip(self, track: _Track, error: av.FFmpegError) -> None:
        """Leave a damaged packet out: sound never costs a picture."""
        if not track.is_damaged:
            log.warning("%s: damaged sound is left out: %s", self._name, describe(error))
        track.is_damaged = True


class _Parts:
    """Puts joined recordings, in each of which time begins anew, one behind the other as their pictures follow."""

    def __init__(self, pictures: VideoStream, start_s: Fraction) -> None:
        self._pictures = pictures.index
        self._step_s = 1 / (pictures.average_rate or pictures.guessed_rate or Fraction(PICTURES_PER_S))
        self._shifts_s = [-start_s]
        """Of the parts whose pictures have begun."""
        self._part: dict[int, int] = {}
        self._last_s: dict[int, Fraction] = {}
        """By stream: the number of its present part, and its latest packet's time there."""
        self._end_s = Fraction(0)
        """Of the pictures so far, shifted."""
        self._early: deque[tuple[int, Packet[Stream]]] = deque(maxlen=MAX_EARLY_PACKETS)
        """Sound of a part whose pictures have not begun."""

    def placed(self, packet: Packet[Stream]) -> Iterator[Packet[Stream]]:
        """Yield `packet`, and what has waited for it, with their times in the joined whole."""
        stream = packet.stream.index
        ticks = packet.pts if packet.dts is None else packet.dts  # the one that grows
        if ticks is not None:
            at_s = ticks * packet.time_base
            if at_s < self._last_s.get(stream, at_s) - _JUMP_S:
                self._part[stream] = self._part.get(stream, 0) + 1
            self._last_s[stream] = at_s
        part = self._part.get(stream, 0)
        if stream == self._pictures and ticks is not None:
            begin_s = (ticks if packet.pts is None else packet.pts) * packet.time_base
            if part == len(self._shifts_s):
                self._shifts_s.append(self._end_s - begin_s)
            self._end_s = max(self._end_s, begin_s + self._shifts_s[part] + self._step_s)
            while self._early and self._early[0][0] <= part:
                early_part, early = self._early.popleft()
                yield _shifted(early, self._shifts_s[early_part])
        if part < len(self._shifts_s):
            yield _shifted(packet, self._shifts_s[part])
        else:
            self._early.append((part, packet))


def _shifted(packet: Packet[Stream], by_s: Fraction) -> Packet[Stream]:
    ticks = round(by_s / packet.time_base)
    if packet.pts is not None:
        packet.pts += ticks
    if packet.dts is not None:
        packet.dts += ticks
    return packet


def _time_s(packet: Packet[Stream]) -> float | None:
    """The packet's time in seconds; None for one without, as the empty one at the end."""
    ticks = packet.dts if packet.pts is None else packet.pts
    return None if ticks is None else float(ticks * packet.time_base)


def _first_packets(path: str) -> dict[int, Packet[Stream]]:
    """Return the first packet of each sound track, by stream index, as far as they come within `SILENT_AFTER_S`."""
    first: dict[int, Packet[Stream]] = {}
    with open_recording(path) as source, suppress(av.FFmpegError):
        missing = {stream.index for stream in source.streams.audio}
        begin_s: float | None = None
        for packet in packets_of(source) if missing else ():
            time_s = _time_s(packet)
            if time_s is None:
                continue
            begin_s = time_s if begin_s is None else begin_s
            if packet.stream.index in missing:
                first[packet.stream.index] = packet
                missing.remove(packet.stream.index)
            if not missing or time_s > begin_s + SILENT_AFTER_S:
                break
    return first


def _holds(format_name: str, stream: AudioStream) -> bool:
    """Return whether a container can hold the stream's codec: FFmpeg is certain only when it writes a header."""
    probe = av.open(io.BytesIO(), "w", format=format_name)
    try:
        probe.add_stream_from_template(stream)
        probe.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    finally:
        with suppress(av.FFmpegError):
            probe.close()
    return True


def _add(stream: AudioStream, output: OutputContainer, first: Packet[Stream]) -> _Track:
    # FFmpeg's MP4 muxer with `delay_moov` refuses AAC whose packets have headers; its Matroska muxer strips them.
    has_headers = stream.codec_context.name == "aac" and not stream.codec_context.extradata
    strip_adts = configured = None
    if has_headers:
        # Before the track is added, for what only calls itself AAC: a track that is never written to would hold the
        # whole file back.
        configured = BitStreamFilterContext("aac_adtstoasc", in_stream=stream).filter(first)
        if output.format.name == "matroska":
            configured = None
        else:
            strip_adts = BitStreamFilterContext("aac_adtstoasc", in_stream=stream)
    target = output.add_stream_from_template(stream)
    if configured is not None:
        target.codec_context.extradata = bytes(configured[0].get_sidedata("new_extradata"))
    if "language" in stream.metadata:
        target.metadata["language"] = stream.metadata["language"]
    return _Track(target, strip_adts)
