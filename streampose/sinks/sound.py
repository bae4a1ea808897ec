"""Copies the sound of a recording packet by packet into another container, without decoding."""

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
from streampose.sources.decode import RESTART_S, late_start_s, open_recording, packets_of, video_stream
from streampose.sources.recorded import STILLS_PER_S
from streampose.sources.source import Reading

log = logging.getLogger("streampose")

_CONTAINERS = {"matroska": ".mkv", "mov": ".mov", "mp4": ".mp4"}

CUT_AFTER_S = 1.0
"""If the recording's video continues for longer than this after the last written frame, the run was stopped early."""

SILENT_AFTER_S = 60.0
"""Omit a track that has no packet within this time: MP4 keeps all packets in memory until each track has one."""


MAX_EARLY_PACKETS = 1000
"""20 s of AAC. Sound that waits longer than this for its video is omitted."""


@dataclass
class _Track:
    target: AudioStream
    strip_adts: BitStreamFilterContext | None
    """Set if each packet has its own header (AAC in MPEG-TS) that the target's container does not accept."""
    last_dts: int | None = None
    is_damaged: bool = False
    """Whether damage in this track was already reported."""


class Sound:
    """Copies the sound tracks of one recording into a container. Damage in the recording ends the copy silently."""

    def __init__(
        self, path: str, output: OutputContainer, name: str, *, begins_s: Fraction = Fraction(0), end_s: float = inf
    ) -> None:
        """Add the sound tracks of the recording at `path` to `output`, before its encoding starts.

        Only the sound from `begins_s` to `end_s` of the recording is copied, and it starts at 0; otherwise times stay.
        A track that the container cannot hold is omitted with a warning that names the file as `name`. Raises
        `av.FFmpegError` if the recording cannot be opened.
        """
        first = _first_packets(path)
        self._output = output
        self._name = name
        self._input = open_recording(path)
        self._tracks: dict[int, _Track] = {}
        for stream in self._input.streams.audio:
            if stream.codec_context is None:
                log.warning("%s: omitting a sound track whose codec this FFmpeg does not support", name)
                continue
            codec = stream.codec_context.name
            if stream.index not in first:
                log.warning("%s: omitting a sound track that has no data for %.0f s", name, SILENT_AFTER_S)
            elif not _holds(output.format.name, stream):
                log.warning(
                    "%s: omitting the %s sound, which this container cannot hold%s",
                    name,
                    codec,
                    _remedy(stream),
                )
            else:
                try:
                    self._tracks[stream.index] = _add(stream, output, first[stream.index])
                except (av.FFmpegError, ValueError) as error:
                    log.warning("%s: omitting the %s sound: %s", name, codec, describe(error))
        self._begins_s = begins_s
        self._end_s = end_s - float(begins_s)
        self._packets = self._read()
        self._waiting: tuple[float, Packet[Stream]] | None = None

    def copy_until(self, time_s: float) -> None:
        """Copy the packets that start before `time_s` in the output."""
        for _, packet in self._before(time_s):
            self._copy(packet)

    def finish(self, end_s: float) -> None:
        """Copy the remaining sound. If the recording's video continues, stop at `end_s`, the end of the last frame."""
        behind: list[Packet[Stream]] = []
        for time_s, packet in self._before(inf):
            if packet.stream.index not in self._tracks:
                if time_s > end_s + CUT_AFTER_S:
                    return
            elif time_s < min(end_s, self._end_s):
                self._copy(packet)
            elif time_s < self._end_s:
                behind.append(packet)
        for packet in behind:
            self._copy(packet)

    def close(self) -> None:
        """Close the recording. Safe to call twice."""
        self._input.close()

    def _read(self) -> Iterator[tuple[float, Packet[Stream]]]:
        """Yield the packets of the sound tracks with their times, and those of the video to find its end."""
        if not self._tracks:
            return
        video = video_stream(self._input, Reading())
        parts = _Parts(video, late_start_s(self._input) + self._begins_s)
        try:
            for packet in packets_of(self._input, *(self._input.streams[index] for index in self._tracks), video):
                for shifted in parts.placed(packet):
                    time_s = _time_s(shifted)
                    if time_s is not None and (time_s >= 0 or not self._begins_s):
                        yield time_s, shifted
        except av.FFmpegError as error:
            log.debug("sound ends early because the recording is damaged: %s", describe(error))

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
            return  # the muxer accepts only increasing times
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
            except (
                av.InvalidDataError,
                av.ArgumentError,
            ) as error:  # a damaged packet; a full disk raises another error
                self._skip(track, error)

    def _skip(self, track: _Track, error: av.FFmpegError) -> None:
        """Skip a damaged packet, because damaged sound must never stop the video."""
        if not track.is_damaged:
            log.warning("%s: omitting damaged sound: %s", self._name, describe(error))
        track.is_damaged = True


class _Parts:
    """Places the parts of a joined recording one after another. Each part restarts time; the video sets the offsets."""

    def __init__(self, video: VideoStream, start_s: Fraction) -> None:
        self._video = video.index
        self._step_s = 1 / (video.average_rate or video.guessed_rate or Fraction(STILLS_PER_S))
        self._shifts_s = [-start_s]
        """Time shift of each part whose video has started."""
        self._part: dict[int, int] = {}
        self._last_s: dict[int, Fraction] = {}
        """Per stream: the number of its current part, and the time of its latest packet in that part."""
        self._end_s = -start_s
        """End of the video so far, in shifted time."""
        self._early: deque[tuple[int, Packet[Stream]]] = deque(maxlen=MAX_EARLY_PACKETS)
        """Sound of a part whose video has not started."""

    def placed(self, packet: Packet[Stream]) -> Iterator[Packet[Stream]]:
        """Yield `packet` and the packets that waited for it, with times shifted to the joined recording."""
        stream = packet.stream.index
        ticks = packet.pts if packet.dts is None else packet.dts  # DTS always increases
        if ticks is not None:
            at_s = ticks * packet.time_base
            if at_s < self._last_s.get(stream, at_s) - RESTART_S:
                self._part[stream] = self._part.get(stream, 0) + 1
            self._last_s[stream] = at_s
        part = self._part.get(stream, 0)
        if stream == self._video and ticks is not None:
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
    """Return the packet's time in seconds; None if it has none, as for the empty packet at the end."""
    ticks = packet.dts if packet.pts is None else packet.pts
    return None if ticks is None else float(ticks * packet.time_base)


def _first_packets(path: str) -> dict[int, Packet[Stream]]:
    """Return the first packet of each sound track by stream index, if it comes within `SILENT_AFTER_S`."""
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
    """Return whether a container can hold the stream's codec. Only writing a header gives a definite answer."""
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


def _remedy(stream: AudioStream) -> str:
    """Return the end of a message, which names the suffixes of containers that can hold the stream's codec."""
    suffixes = [suffix for format_name, suffix in _CONTAINERS.items() if _holds(format_name, stream)]
    return f"; use {' or '.join(suffixes)}" if suffixes else ""


def _add(stream: AudioStream, output: OutputContainer, first: Packet[Stream]) -> _Track:
    # FFmpeg's MP4 muxer with `delay_moov` refuses AAC packets with headers. Its Matroska muxer strips the headers.
    has_headers = stream.codec_context.name == "aac" and not stream.codec_context.extradata
    strip_adts = configured = None
    if has_headers:
        # Filter before adding the track, so that invalid AAC fails here: an added track without packets would block
        # the output of the whole file.
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
