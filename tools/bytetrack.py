"""Writes a poses file again with the identities that ByteTrack gives to its boxes, for comparison with ours.

    python -m tools.bytetrack poses.jsonl bytetrack.jsonl
    streampose evaluate poses.jsonl bytetrack.jsonl --truth truth.json

People to whom ByteTrack gives no identity are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import supervision as sv
from trackers import ByteTrackTracker

from streampose.records.lines import line_of, read_lines


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("poses", help="a poses file")
    parser.add_argument("output", type=Path, help="the poses file to write")
    arguments = parser.parse_args()
    header, frames = read_lines(arguments.poses)
    lines = list(frames)
    step_s = float(np.median(np.diff([line["pts_s"] for line in lines])))
    # Its usual thresholds are made for detectors with higher scores.
    tracker = ByteTrackTracker(frame_rate=1 / step_s, track_activation_threshold=0.25, high_conf_det_threshold=0.3)
    with arguments.output.open("wb") as file:
        file.write(line_of(header))
        for line in lines:
            people = line["people"]
            tracked = tracker.update(
                sv.Detections(
                    xyxy=np.array([person["box_xyxy"] for person in people], np.float32).reshape(-1, 4),
                    confidence=np.array([person["box_score"] for person in people], np.float32),
                    class_id=np.zeros(len(people), int),
                    data={"row": np.arange(len(people))},
                )
            )
            ids = [] if tracked.tracker_id is None else tracked.tracker_id.tolist()
            # Its identities begin at 0, those of poses files at 1.
            kept = [
                {**people[row], "id": number + 1}
                for row, number in zip(tracked.data.get("row", ()), ids, strict=True)
                if number >= 0
            ]
            file.write(line_of({**line, "people": kept}))


if __name__ == "__main__":
    main()
