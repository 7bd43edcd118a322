"""What the decoder is asked: N prompts of one kind on one frame, as arrays in pixels of the original image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vidseg.errors import UsageError
from vidseg.sam.geometry import Geometry
from vidseg.types import ShapeRepr


@dataclass(frozen=True, slots=True, repr=False)
class PromptBatch(ShapeRepr):
    """N prompts on one frame; every given field has N rows. Together they describe N objects, one each.

    ``boxes`` float (N, 4) XYXY. ``points`` float (N, P, 2) with ``labels`` int (N, P): 1 object, 0 background, -1 no
    point. ``masks`` float32 (N, 4h, 4w): logits at :attr:`Geometry.low_res`, such as an earlier answer of the decoder.
    Coordinates are pixels of the original frame; outside the frame is allowed and means what the network makes of it.
    For other mixtures pass the same frame several times to ``decode``, once per kind.
    """

    boxes: npt.NDArray[Any] | None = None
    points: npt.NDArray[Any] | None = None
    labels: npt.NDArray[Any] | None = None
    masks: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        """Check shapes, counts, and that every number is finite and every box is the right way round."""
        if (self.points is None) != (self.labels is None):
            raise UsageError("points and labels go together: one of them is missing")
        given = {k: v for k in ("boxes", "points", "labels", "masks") if (v := getattr(self, k)) is not None}
        if not given:
            raise UsageError("empty prompts: give boxes, points with labels, or masks")
        for name, array in given.items():
            if not isinstance(array, np.ndarray):
                raise UsageError(f"prompt {name}: a numpy array wanted, got {type(array).__name__}")
        if len({len(v) for v in given.values()}) > 1:
            raise UsageError(
                f"prompts disagree on their number: {', '.join(f'{len(v)} {k}' for k, v in given.items())}"
            )
        for name, tail in (("boxes", (4,)), ("points", (-1, 2)), ("labels", (-1,)), ("masks", (-1, -1))):
            array = given.get(name)
            if array is None:
                continue
            shape = array.shape[1:]
            if len(shape) != len(tail) or any(t not in (-1, s) for s, t in zip(shape, tail, strict=True)):
                wanted = ", ".join(["N", *("..." if t == -1 else str(t) for t in tail)])
                raise UsageError(f"prompt {name} of shape {array.shape}: ({wanted}) wanted")
            if name != "labels" and not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0, 0])
                value = "" if name == "masks" else f": {array[row].tolist()}"
                raise UsageError(f"prompt {name}, row {row}{value} is not finite")
        if self.boxes is not None:
            wrong = (self.boxes[:, 2] < self.boxes[:, 0]) | (self.boxes[:, 3] < self.boxes[:, 1])
            if wrong.any():
                row = int(wrong.argmax())
                raise UsageError(f"box {row} {self.boxes[row].tolist()}: x1 <= x2 and y1 <= y2 wanted")
        if self.points is not None and self.labels is not None:
            if self.points.shape[:2] != self.labels.shape:
                raise UsageError(f"points of shape {self.points.shape} do not fit labels of shape {self.labels.shape}")
            if not np.isin(self.labels, (-1, 0, 1)).all():
                raise UsageError(f"point labels {np.unique(self.labels).tolist()}: allowed are 1, 0 and -1")

    def __len__(self) -> int:
        """N."""
        return next(len(v) for v in (self.boxes, self.points, self.masks) if v is not None)

    @property
    def kind(self) -> tuple[bool, int, bool]:
        """(boxes?, points per prompt or -1, masks?): prompts of one kind can share a batch."""
        return self.boxes is not None, -1 if self.points is None else self.points.shape[1], self.masks is not None

    def resized(self, geometry: Geometry) -> dict[str, npt.NDArray[Any]]:
        """The fields that are given, with coordinates scaled to the resized image, as float32 (labels int64)."""
        scale = np.array(geometry.scale, dtype=np.float64)
        fields: dict[str, npt.NDArray[Any]] = {}
        if self.boxes is not None:
            fields["boxes"] = (self.boxes * np.tile(scale, 2)).astype(np.float32)
        if self.points is not None and self.labels is not None:
            fields["points"] = (self.points * scale).astype(np.float32)
            fields["labels"] = self.labels.astype(np.int64)
        if self.masks is not None:
            if self.masks.shape[1:] != geometry.low_res:
                raise UsageError(
                    f"mask prompts {self.masks.shape}: (N, {geometry.low_res[0]}, {geometry.low_res[1]}) wanted"
                    f" for an image of {geometry.original[1]}x{geometry.original[0]} pixels"
                )
            fields["masks"] = self.masks[:, None].astype(np.float32)
        return fields
