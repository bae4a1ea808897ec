"""streampose: live or recorded video to human pose, in real time.

import streampose

for result in streampose.stream("clip.mp4"):
    print(result.frame.pts_s, len(result.people), result.people.keypoints_xy)

estimator = streampose.load()
print(estimator(image).people.keypoints_xy)
"""

from streampose._version import __version__
from streampose.api import load, stream
from streampose.errors import (
    AnnotateError,
    ModelError,
    SinkError,
    SourceError,
    StalledError,
    StreamposeError,
    UsageError,
)
from streampose.frames import Boxes, Frame, People, Result, RunInfo, Skeleton, SourceInfo
from streampose.inputs import Input
from streampose.records.poses import RecordedFrame, RecordedPoses, read_poses
from streampose.redraw import draw
from streampose.sinks.sink import Sink

__all__ = [
    "AnnotateError",
    "Boxes",
    "Frame",
    "Input",
    "ModelError",
    "People",
    "RecordedFrame",
    "RecordedPoses",
    "Result",
    "RunInfo",
    "Sink",
    "SinkError",
    "Skeleton",
    "SourceError",
    "SourceInfo",
    "StalledError",
    "StreamposeError",
    "UsageError",
    "__version__",
    "draw",
    "load",
    "read_poses",
    "stream",
]
