"""Prints how well identities last in a poses file, beside a public tracker's on the same boxes.

streampose run assets/crossing.mp4 --to crossing.jsonl
python -m tools.evaluate_tracking crossing.jsonl assets/crossing_truth.json
"""

from __future__ import annotations

import argparse

import numpy as np
import supervision as sv

from streampose.records.lines import read_lines
from tools.tracking import Identified, Tracking, judge, read_identified, read_truth


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("poses", help="a poses file with identities")
    parser.add_argument("truth", help="the true people, as assets/crossing_truth.json")
    arguments = parser.parse_args()
    truth, found = read_truth(arguments.truth), read_identified(arguments.poses)
    print(f"{'':12} {'HOTA':>6} {'AssA':>6} {'IDF1':>6} {'switches':>9} {'identities':>11}")
    print(row("streampose", judge(truth, found)))
    print(row("ByteTrack", judge(truth, with_bytetrack(arguments.poses))))


def row(name: str, of: Tracking) -> str:
    """Return a line of the table."""
    identities = f"{of.identities} of {of.true_identities}"
    return f"{name:12} {of.hota:6.3f} {of.assa:6.3f} {of.idf1:6.3f} {of.switches:9} {identities:>11}"


def with_bytetrack(path: str) -> dict[int, Identified]:
    """Return the boxes of a poses file with the identities that `trackers.ByteTrackTracker` gives them."""
    from trackers import ByteTrackTracker

    lines = list(read_lines(path)[1])
    step_s = float(np.median(np.diff([line["pts_s"] for line in lines])))
    # Its usual thresholds are made for detectors with higher scores.
    tracker = ByteTrackTracker(frame_rate=1 / step_s, track_activation_threshold=0.25, high_conf_det_threshold=0.3)
    found = {}
    for line in lines:
        people = line["people"]
        tracked = tracker.update(
            sv.Detections(
                xyxy=np.array([person["box_xyxy"] for person in people], np.float32).reshape(-1, 4),
                confidence=np.array([person["box_score"] for person in people], np.float32),
                class_id=np.zeros(len(people), int),
            )
        )
        ids = np.array([] if tracked.tracker_id is None else tracked.tracker_id, np.int64)
        found[line["frame"]] = Identified(ids[ids >= 0], np.asarray(tracked.xyxy, np.float32)[ids >= 0])
    return found


if __name__ == "__main__":
    main()
