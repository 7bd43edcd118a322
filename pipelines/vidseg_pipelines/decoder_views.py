"""What the decoder looks at, frames and crops of them, and what it draws there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidseg.sam.geometry import Geometry
from vidseg.sam.zoom import Crop, cut_maps, to_low_res
from vidseg_pipelines.mask_signals import agreement

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class View:
    """A frame of the batch, or a crop of it, and the rows of its tracks that are drawn there."""

    frame: int
    size: Size
    rows: list[int]
    crop: Crop
    geometry: Geometry

    def low_res(self, maps: Float[Tensor, "N h w"], outside: float) -> Float[Tensor, "n lh lw"]:
        """The rows of a tracker's maps of the whole frame as the decoder sees this view."""
        chosen = torch.stack([maps[row] for row in self.rows])
        return to_low_res(cut_maps(chosen, self.size, self.crop), self.geometry, outside)


class Drawn(NamedTuple):
    """Low-resolution logits (n, h, w) of the objects of a view."""

    logits: Float[Tensor, "n h w"]
    view: View
    hq_iou: Float[Tensor, "n 1"] | None

    def agreement(self, own: Float[Tensor, "N h w"]) -> Int[Tensor, "n 5"]:
        """See :func:`vidseg_pipelines.mask_signals.agreement`; ``own`` are the logits of all objects of the frame."""
        rows, columns = self.view.geometry.low_res_frame
        return agreement(self.view.low_res(own, -1.0)[:, :rows, :columns], self.logits[:, :rows, :columns], self.hq_iou)
