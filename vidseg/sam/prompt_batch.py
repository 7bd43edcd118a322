"""What the decoder is asked: N prompts of one kind on one frame, in pixels of the original image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from vidseg.errors import UsageError
from vidseg.sam.geometry import Geometry
from vidseg.types import Array, ShapeRepr


@dataclass(frozen=True, slots=True, repr=False, init=False)
class PromptBatch(ShapeRepr):
    """N prompts on one frame; every given field has N rows. Together they describe N objects, one each.

    ``boxes`` float (N, 4) XYXY. ``points`` float (N, P, 2) with ``labels`` int (N, P): 1 object, 0 background, -1 no
    point. ``masks`` float32 (N, 4h, 4w): logits at :attr:`Geometry.low_res`, such as an earlier answer of the decoder.
    Coordinates are pixels of the original frame; outside the frame is allowed and means what the network makes of it.
    For other mixtures pass the same frame several times to ``decode``, once per kind.

    Arrays and tensors are taken and kept as tensors: boxes, points and labels on the CPU, masks on the device where
    they are.
    """

    boxes: Float[Tensor, "n 4"] | None
    points: Float[Tensor, "n p 2"] | None
    labels: Num[Tensor, "n p"] | None
    masks: Float[Tensor, "n h w"] | None

    def __init__(
        self,
        boxes: Array | Tensor | None = None,
        points: Array | Tensor | None = None,
        labels: Array | Tensor | None = None,
        masks: Array | Tensor | None = None,
    ) -> None:
        """Check shapes, counts, and that every number is finite and every box is the right way round.

        The numbers of masks on an accelerator are not checked: that would wait for it.
        """
        for name, value in (("boxes", boxes), ("points", points), ("labels", labels)):
            tensor = _as_tensor(name, value)
            object.__setattr__(self, name, None if tensor is None else tensor.cpu())
        object.__setattr__(self, "masks", _as_tensor("masks", masks))
        self._check_shapes()
        self._check_numbers()

    def _check_shapes(self) -> None:
        if (self.points is None) != (self.labels is None):
            raise UsageError("points and labels go together: one of them is missing")
        given = self._given()
        if not given:
            raise UsageError("empty prompts: give boxes, points with labels, or masks")
        if len({len(v) for v in given.values()}) > 1:
            raise UsageError(
                f"prompts disagree on their number: {', '.join(f'{len(v)} {k}' for k, v in given.items())}"
            )
        tails = {"boxes": (4,), "points": (-1, 2), "labels": (-1,), "masks": (-1, -1)}
        for name, tensor in given.items():
            shape, tail = tuple(tensor.shape), tails[name]
            if len(shape) != 1 + len(tail) or any(t not in (-1, s) for s, t in zip(shape[1:], tail, strict=True)):
                expected = ", ".join(["N", *("..." if t == -1 else str(t) for t in tail)])
                raise UsageError(f"prompt {name} of shape {shape}: ({expected}) expected")
        if self.points is not None and self.labels is not None and self.points.shape[:2] != self.labels.shape:
            shapes = tuple(self.points.shape), tuple(self.labels.shape)
            raise UsageError(f"points of shape {shapes[0]} do not fit labels of shape {shapes[1]}")

    def _check_numbers(self) -> None:
        for name, tensor in self._given().items():
            if name == "labels" or tensor.device.type != "cpu" or bool(tensor.isfinite().all()):
                continue
            row = int((~tensor.isfinite()).flatten(1).any(1).int().argmax())
            value = "" if name == "masks" else f": {tensor[row].tolist()}"
            raise UsageError(f"prompt {name}, row {row}{value} is not finite")
        if self.boxes is not None:
            wrong = (self.boxes[:, 2] < self.boxes[:, 0]) | (self.boxes[:, 3] < self.boxes[:, 1])
            if bool(wrong.any()):
                row = int(wrong.int().argmax())
                raise UsageError(f"box {row} {self.boxes[row].tolist()}: x1 <= x2 and y1 <= y2 expected")
        if self.labels is not None:
            found = self.labels.unique().tolist()
            if not {-1, 0, 1}.issuperset(found):
                raise UsageError(f"point labels {found}: allowed are 1, 0 and -1")

    def _given(self) -> dict[str, Tensor]:
        fields = {"boxes": self.boxes, "points": self.points, "labels": self.labels, "masks": self.masks}
        return {name: tensor for name, tensor in fields.items() if tensor is not None}

    def __len__(self) -> int:
        """N."""
        return len(next(iter(self._given().values())))

    @property
    def kind(self) -> tuple[bool, int, bool]:
        """(boxes?, points per prompt or -1, masks?): prompts of one kind can share a batch."""
        return self.boxes is not None, -1 if self.points is None else self.points.shape[1], self.masks is not None

    def resized(self, geometry: Geometry) -> dict[str, Tensor]:
        """The fields that are given, with coordinates scaled to the resized image, as float32 (labels int64)."""
        scale = torch.tensor(geometry.scale, dtype=torch.float64)
        fields: dict[str, Tensor] = {}
        if self.boxes is not None:
            fields["boxes"] = (self.boxes * scale.tile(2)).float()
        if self.points is not None and self.labels is not None:
            fields["points"] = (self.points * scale).float()
            fields["labels"] = self.labels.long()
        if self.masks is not None:
            if self.masks.shape[1:] != geometry.low_res:
                raise UsageError(
                    f"mask prompts {tuple(self.masks.shape)}: (N, {geometry.low_res[0]}, {geometry.low_res[1]})"
                    f" expected for an image of {geometry.original[1]}x{geometry.original[0]} pixels"
                )
            fields["masks"] = self.masks[:, None].float()
        return fields


def _as_tensor(name: str, value: Array | Tensor | None) -> Tensor | None:
    if value is None or isinstance(value, Tensor):
        return value
    if not isinstance(value, np.ndarray):
        raise UsageError(f"prompt {name}: an array or a tensor expected, got {type(value).__name__}")
    return torch.from_numpy(np.array(value, order="C"))  # a copy: no array of the user changes a prompt
