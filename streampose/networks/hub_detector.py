"""Runs any detector from the Hugging Face hub that transformers can load."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streampose.frames import Boxes, Shrink
from streampose.networks.checkpoints import Checkpoint
from streampose.networks.detector import PersonDetector, choose_classes
from streampose.networks.loading import check_range, load_image_processor, load_network
from streampose.networks.workers import all_cores

DEFAULT_THRESHOLD = 0.3
"""Minimum score of a box."""


class HubDetector(PersonDetector):
    """Any detector that transformers' `AutoModelForObjectDetection` can load, with its own image processor.

    The processor runs on the host. Half precision uses autocast, which keeps precision-sensitive operations in float32.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: torch.device,
        dtype: torch.dtype,
        threshold: float,
        classes: str | Sequence[str | int] | None,
        max_people: int | None,
        max_batch: int,
    ) -> None:
        """Load the network of `checkpoint`; the other arguments are those of `load_detector`."""
        from transformers import AutoModelForObjectDetection

        network = load_network(checkpoint, AutoModelForObjectDetection, torch.float32)
        check_range(checkpoint, dict(network.named_parameters()), dtype)
        known = {int(number): str(label) for number, label in network.config.id2label.items()}
        label_of = choose_classes(checkpoint.name, known, classes)
        super().__init__(checkpoint.name, label_of, device=device, max_people=max_people, max_batch=max_batch)
        self._network = network.to(device)
        self._processor = load_image_processor(checkpoint)
        self._dtype = dtype
        self._threshold = threshold

    def prepare(self, images: Sequence[Tensor], shrinks: Sequence[Shrink | None] | None = None) -> Any:
        """Return the images as prepared by transformers' processor, on the network's device.

        The processor resizes the images itself, so `shrinks` is not used.
        """
        del shrinks
        rgb_images = [image.flip(-1).cpu().numpy() for image in images]
        inputs = self._processor(images=rgb_images, input_data_format="channels_last", return_tensors="pt")
        return inputs.to(self.device)

    def forward(self, inputs: Any) -> Any:
        """Return the network's outputs in transformers' format."""
        with (
            all_cores() if self.device.type == "cpu" else nullcontext(),
            torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32),
        ):
            return self._network(**inputs)

    def _boxes(self, outputs: Any, height: int, width: int) -> list[Boxes]:
        outputs.logits, outputs.pred_boxes = outputs.logits.float().cpu(), outputs.pred_boxes.float().cpu()
        results = self._processor.post_process_object_detection(
            outputs, threshold=self._threshold, target_sizes=[(height, width)] * len(outputs.logits)
        )
        wanted = torch.tensor(list(self.label_of))
        found = []
        for result in results:
            chosen = torch.isin(result["labels"], wanted)
            xyxy, scores, labels = (result[key][chosen].numpy() for key in ("boxes", "scores", "labels"))
            found.append(Boxes(xyxy.astype(np.float32), scores.astype(np.float32), labels.astype(np.int64)))
        return found
