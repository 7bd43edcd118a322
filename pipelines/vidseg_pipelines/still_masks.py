"""Objects that neither move nor change keep what was drawn of them, so that it need not be drawn on every frame.

Every look is compared with the frame on which the object was drawn, not with the last one, so that slow changes add up.
Only the redrawn mask is kept: how it goes together with the tracker's mask and with other objects is decided anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vidseg.masks.boxes import box_iou
from vidseg.sam.config import InputConfig
from vidseg.sam.geometry import frame_geometry
from vidseg.sam.zoom import Crop, crop_around
from vidseg.types import Array, Frame, State, Tracks
from vidseg_pipelines.decoder_views import Drawn, View
from vidseg_pipelines.mask_layers import to_host

SAME_MASK = 0.95
"""Least IoU of the tracker's masks (of its boxes, where it has no masks)."""
SAME_PIXELS = 8.0
"""Most that a cell of the object's surroundings may differ (0..255, mean of the colours)."""
_CELLS, _CELL_PX = 64, 4
"""Cells per side of these surroundings, at most, and pixels per side of a cell, at least: noise averages out."""


@dataclass
class _Still:
    """An object on the frame on which it was drawn."""

    window: Crop
    cells: npt.NDArray[np.uint8]
    box: npt.NDArray[np.float32]
    mask: Array | None
    """The tracker's, (h, w) bool."""
    drawn: Drawn | None = None
    """Of this object alone."""

    def is_like(self, frame: Frame, box: Array, mask: Array | None) -> bool:
        """Is the object the same on another frame?"""
        if mask is None or self.mask is None or mask.shape != self.mask.shape:
            same = mask is None and self.mask is None and box_iou(box[None], self.box[None])[0, 0] >= SAME_MASK
        else:
            same = np.count_nonzero(mask & self.mask) >= SAME_MASK * np.count_nonzero(mask | self.mask)
        if not same:
            return False
        change = np.abs(_cells(frame, self.window).astype(np.float32) - self.cells).mean(2)
        return float(change.max()) <= SAME_PIXELS


class StillMasks:
    """What was drawn of the objects that the last frame shows."""

    def __init__(self, config: InputConfig) -> None:
        """``config`` of the network that draws."""
        self._config = config
        self._known: dict[int, _Still] = {}
        self._batch: dict[tuple[int, int], _Still] = {}

    def look(
        self,
        frames: Sequence[Frame],
        tracks: Sequence[Tracks],
        logits: Mapping[int, Float[Tensor, "N h w"]],
        given: Sequence[Collection[int]],
    ) -> list[set[int]]:
        """By frame of a micro-batch, the rows of the tracks that need not be drawn.

        Args:
            frames: of the micro-batch.
            tracks: of the same frames.
            logits: of the tracks that have masks, by frame: > 0 inside.
            given: ids of the objects whose masks are given.
        """
        self._batch, kept = {}, []
        self._known = self._complete()
        masks = dict(zip(logits, to_host([maps > 0 for maps in logits.values()]), strict=True))
        for n, (frame, found) in enumerate(zip(frames, tracks, strict=True)):
            now: dict[int, _Still] = {}
            same: set[int] = set()
            for row, i in enumerate(found.ids.tolist()):
                if i in given[n]:
                    continue
                box, mask = found.boxes[row], masks[n][row] if n in masks else None
                known = self._known.get(i)
                if known is not None and known.is_like(frame, box, mask):
                    same.add(row)
                    now[i] = known
                else:
                    window = crop_around(box, frame.hw)
                    now[i] = _Still(window, _cells(frame, window), box, mask)
                self._batch[n, row] = now[i]
            self._known = now
            kept.append(same)
        return kept

    def complete(self, drawn: Sequence[Drawn], kept: Sequence[Collection[int]], frames: Sequence[Frame]) -> list[Drawn]:
        """What is kept of the rows ``kept`` of the micro-batch; ``drawn`` on it is remembered."""
        for one in drawn:
            for k, row in enumerate(one.view.rows):
                quality = None if one.hq_iou is None else one.hq_iou[k : k + 1].clone()
                view = replace(one.view, rows=[row])
                self._batch[one.view.frame, row].drawn = Drawn(one.logits[k : k + 1].clone(), view, quality)
        result = []
        for n, rows in enumerate(kept):
            for row in sorted(rows):
                known = self._batch[n, row].drawn
                assert known is not None  # it was drawn on an earlier frame
                result.append(known._replace(view=replace(known.view, frame=n, rows=[row], size=frames[n].hw)))
        return result

    def _complete(self) -> dict[int, _Still]:
        """Objects that were drawn; an error may have come before that."""
        return {i: one for i, one in self._known.items() if one.drawn is not None}

    def state_dict(self) -> State:
        """All of it as tensors."""
        state: State = {}
        for i, one in self._complete().items():
            drawn, size = one.drawn, one.mask.shape if one.mask is not None else (0, 0)
            assert drawn is not None
            view = drawn.view
            state[f"{i}.place"] = torch.tensor([*one.window, *view.crop, *view.size, *size, max(view.geometry.resized)])
            state[f"{i}.cells"] = torch.from_numpy(one.cells)
            state[f"{i}.box"] = torch.from_numpy(one.box)
            state[f"{i}.logits"] = drawn.logits
            if one.mask is not None:
                state[f"{i}.mask"] = torch.from_numpy(np.packbits(one.mask))
            if drawn.hq_iou is not None:
                state[f"{i}.hq_iou"] = drawn.hq_iou
        return state

    def load_state_dict(self, state: State, device: torch.device) -> None:
        """Restore what :meth:`state_dict` gave."""
        parts: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            number, _, kind = name.partition(".")
            if isinstance(value, Tensor):
                parts.setdefault(int(number), {})[kind] = value
        self._known = {i: self._restored(part, device) for i, part in parts.items()}

    def _restored(self, part: Mapping[str, Tensor], device: torch.device) -> _Still:
        numbers = part["place"].tolist()
        window, crop = Crop(*numbers[:4]), Crop(*numbers[4:8])
        frame, size, side = (numbers[8], numbers[9]), (numbers[10], numbers[11]), numbers[12]
        mask = None
        if "mask" in part:
            bits = np.unpackbits(part["mask"].cpu().numpy(), count=size[0] * size[1])
            mask = bits.reshape(size).astype(np.bool_)
        hq_iou = part["hq_iou"].to(device, copy=True) if "hq_iou" in part else None
        view = View(0, frame, [0], crop, frame_geometry(crop.size, self._config, side))
        drawn = Drawn(part["logits"].to(device, copy=True), view, hq_iou)
        return _Still(window, part["cells"].cpu().numpy(), part["box"].cpu().numpy(), mask, drawn)


def _cells(frame: Frame, window: Crop) -> npt.NDArray[np.uint8]:
    """A part of a frame, reduced to a grid of cells (n, m, 3)."""
    height, width = (max(1, min(_CELLS, side // _CELL_PX)) for side in window.size)
    pixels = frame.rgb[window.y1 : window.y2, window.x1 : window.x2]
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
