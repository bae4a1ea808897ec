"""Options that only other commands than `run` have."""

from __future__ import annotations

from streampose.kinds import (
    ADDRESS,
    CHECKPOINTS,
    COUNT,
    FILE,
    IDENTITIES,
    INDEX,
    NAMES,
    SHARE,
    SINKS,
    SWITCH,
    TEXT,
    one_of,
)
from streampose.networks.known import DEFAULT_POSE
from streampose.options.option import Option

LEAST_BOX_SCORE = 0.1
"""For `streampose evaluate`. AP needs boxes with low scores, because it ranks people by their score."""

DEFAULT_TARGETS = ("{name}.mp4", "{name}.jsonl")
"""For `streampose batch`."""
DEFAULT_FILES_AT_ONCE = 4
PIECE_FRAMES = 1000
"""A minute or two on a CPU, so that little is lost with a machine, but many batches, so that the last, which are not
full, do not matter."""

OF_TOOLS = (
    Option(
        "out",
        TEXT,
        None,
        "output folder, with the tree of the input folder; it also holds what is known of each file (batch.sqlite) and "
        "the report (batch.json)",
        commands=("batch",),
    ),
    Option(
        "targets",
        SINKS,
        DEFAULT_TARGETS,
        "an output of each file, by its name in the output folder; repeatable; {name} is the name of the file without "
        "its suffix; see streampose run for the kinds (default: '{name}.mp4' and '{name}.jsonl')",
        commands=("batch",),
        own_key="to",
    ),
    Option(
        "retry_failed", SWITCH, False, "process the files again that failed in an earlier start", commands=("batch",)
    ),
    Option(
        "dry_run", SWITCH, False, "print what would be done with each file, and change nothing", commands=("batch",)
    ),
    Option(
        "files_at_once",
        COUNT,
        DEFAULT_FILES_AT_ONCE,
        "read this many files at a time, so that batches stay full",
        commands=("batch",),
    ),
    Option(
        "ray",
        ADDRESS,
        None,
        "use all machines of a Ray cluster: auto for the one that this machine belongs to, its HOST:PORT, or local to "
        "start one on this machine; all machines need the same paths",
        commands=("batch",),
    ),
    Option(
        "ray_processes",
        COUNT,
        None,
        "with --ray: processes with networks per machine (default: one per GPU; without a GPU, one per 8 cores)",
        commands=("batch",),
    ),
    Option(
        "split_frames",
        INDEX,
        PIECE_FRAMES,
        "with --ray: split a file that would keep one process busy longer than all others into pieces of at least N "
        "frames; 0 splits none",
        commands=("batch",),
    ),
    Option(
        "coco",
        FILE,
        None,
        "evaluate pose networks on labelled images: a file of COCO keypoint annotations",
        commands=("evaluate",),
    ),
    Option(
        "truth",
        FILE,
        None,
        "evaluate poses files against this ground truth: a truth file of the recording, or COCO annotations of stills",
        commands=("evaluate",),
    ),
    Option(
        "poses",
        CHECKPOINTS,
        (DEFAULT_POSE,),
        "ViTPose checkpoint to evaluate: a bundled name, a Hugging Face hub id, or a folder in hub layout; repeatable "
        f"(default: {DEFAULT_POSE})",
        commands=("evaluate",),
        own_key="pose",
    ),
    Option(
        "box_source",
        one_of("given", "detected"),
        "given",
        "boxes for the pose networks: those of the annotations, or those of the detector",
        commands=("evaluate",),
        own_key="boxes",
    ),
    Option(
        "least_box_score",
        SHARE,
        LEAST_BOX_SCORE,
        "with detected boxes, drop boxes with a lower score",
        commands=("evaluate",),
        own_key="box_threshold",
    ),
    Option(
        "what",
        one_of("angles", "keypoints", "speed", "path", "heatmap", "timeline"),
        "angles",
        "what to plot: curves of angles, keypoints or speed; paths of people in the frame (path); where they spent "
        "time (heatmap); when each of them was there (timeline)",
        commands=("plot",),
    ),
    Option(
        "person",
        IDENTITIES,
        None,
        "identities of the people to show (default: for curves the person in most frames, otherwise everybody)",
        commands=("plot",),
    ),
    Option(
        "keypoints",
        NAMES,
        None,
        "keypoints to show, such as wrist,left_ankle (default: for --what keypoints wrist and ankle, otherwise the "
        "whole person)",
        commands=("plot",),
    ),
    Option(
        "frame",
        FILE,
        None,
        "draw paths or a heat map on a frame of this video, or on this still",
        commands=("plot",),
    ),
    Option(
        "source_name",
        TEXT,
        None,
        "source to show, if the file has several",
        commands=("plot",),
        own_key="source",
    ),
    Option(
        "as_json",
        SWITCH,
        False,
        "print each event as a line of JSON",
        commands=("rules",),
        own_key="json",
    ),
    Option("frames", COUNT, None, "frames per run (default: enough for a few seconds)", commands=("bench",)),
    Option("reference_frames", COUNT, None, "total number of frames for the slow reference loop", commands=("bench",)),
    Option("quick", SWITCH, False, "run a shorter, less precise measurement", commands=("bench",)),
    Option("json", FILE, None, "also write the results to FILE as JSON", commands=("bench", "evaluate")),
)
