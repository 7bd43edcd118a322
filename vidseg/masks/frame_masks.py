"""The result for one frame: disjoint masks, as a label map and as run-lengths; the protocol of its takers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from vidseg.errors import OutputError, UsageError
from vidseg.masks.boxes import mask_box
from vidseg.masks.rle import area, decode_window, encode_window
from vidseg.masks.trust import Signals
from vidseg.types import Frame, Gap, Rle, same_values

LabelMap: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]
Place: TypeAlias = tuple[slice, slice]


@dataclass(frozen=True, slots=True, repr=False)
class FrameMasks:
    """The result for one frame: the N objects that are visible on it, with disjoint masks.

    The pipeline makes it of a label map (:meth:`from_label_map`), of which it keeps both forms; who has run-lengths,
    such as a journal, calls the constructor, and the label map is decoded when it is first asked for.
    """

    frame_index: int
    pts: int
    time_s: float
    ids: tuple[int, ...]
    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: tuple[str | None, ...]
    rles: tuple[Rle, ...]
    gap: Gap | None = None
    """Of the frame."""
    name: str | None = None
    """Of the frame: the name of its file, where it has one of its own."""
    hw: tuple[int, int] | None = None
    """(height, width) of the frame; of the run-lengths unless given, None where there are none."""
    signals: tuple[Signals | None, ...] = ()
    """By object, what says whether its mask can be trusted (:mod:`vidseg.masks.trust`); all None unless given."""
    _label_map: LabelMap | None = field(default=None, init=False, compare=False)

    def __post_init__(self) -> None:
        """Check that all fields speak of the same N objects."""
        n = len(self.ids)
        if self.boxes.shape != (n, 4) or self.scores.shape != (n,) or len(self.labels) != n or len(self.rles) != n:
            found = f"boxes {self.boxes.shape}, scores {self.scores.shape}"
            found += f", {len(self.labels)} labels, {len(self.rles)} rles"
            raise UsageError(f"result of frame {self.frame_index}: fields do not agree on N: {n} ids, {found}")
        if not self.signals:
            object.__setattr__(self, "signals", (None,) * n)
        elif len(self.signals) != n:
            raise UsageError(f"result of frame {self.frame_index}: signals of {len(self.signals)} objects, {n} ids")
        if self.hw is None and self.rles:
            object.__setattr__(self, "hw", (self.rles[0].height, self.rles[0].width))

    @classmethod
    def from_label_map(
        cls,
        frame: Frame,
        label_map: npt.NDArray[np.integer[Any]],
        ids: Sequence[int],
        scores: npt.NDArray[np.float32],
        labels: Sequence[str | None],
        places: Mapping[int, Place],
        signals: Mapping[int, Signals] | None = None,
    ) -> FrameMasks:
        """The objects that own pixels of a label map (H, W).

        Args:
            frame: what the label map is of.
            label_map: id of every pixel, 0 = background; it is kept and must not be changed.
            ids: objects that may be on it; ``scores`` and ``labels`` are theirs.
            scores: float32 (N,).
            labels: names of classes.
            places: by id, rows and columns in which all pixels of an object lie; without an entry it has none.
            signals: by id, what was measured of an object.
        """
        kept, boxes, rles = [], [], []
        for row, object_id in enumerate(ids):
            if object_id not in places:
                continue
            rows, columns = places[object_id]
            mask = label_map[rows, columns] == object_id
            x1, y1, x2, y2 = mask_box(mask)
            if x2 > x1:
                x0, y0 = columns.start or 0, rows.start or 0
                kept.append(row)
                boxes.append((x1 + x0, y1 + y0, x2 + x0, y2 + y0))
                rles.append(encode_window(mask, y0, x0, *frame.hw))
        visible = tuple(int(ids[row]) for row in kept)
        result = cls(
            frame.index,
            frame.pts,
            frame.time_s,
            visible,
            np.array(boxes, np.float32).reshape(-1, 4),
            scores[kept],
            tuple(labels[row] for row in kept),
            tuple(rles),
            frame.gap,
            frame.name,
            frame.hw,
            tuple((signals or {}).get(object_id) for object_id in visible),
        )
        object.__setattr__(result, "_label_map", label_map.astype(_dtype_for(visible), copy=False))
        return result

    @property
    def label_map(self) -> LabelMap:
        """Id of every pixel (H, W), 0 = background, in the smallest unsigned type for these ids; read-only.

        Where run-lengths overlap, which is never so in a result of vidseg, the later object covers the earlier.

        Raises:
            UsageError: a frame without objects whose size is not known.
            OutputError: a mask is not of the size of the frame.
            InputError: the run-lengths are malformed.
        """
        if self._label_map is None:
            if self.hw is None:
                raise UsageError(f"frame {self.frame_index}: no objects, and the size of the frame is not known")
            object.__setattr__(self, "_label_map", decode_label_map(self.ids, self.rles, self.hw))
        assert self._label_map is not None
        if self._label_map.flags.writeable:  # also of a result that was pickled
            shown = self._label_map.view()
            shown.flags.writeable = False  # a session computes with it: nobody may change it by mistake
            object.__setattr__(self, "_label_map", shown)
        return self._label_map

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """One mask per object, (N, H, W)."""
        masks: npt.NDArray[np.bool_] = self.label_map == np.array(self.ids, self.label_map.dtype)[:, None, None]
        return masks

    def windows(self) -> Iterator[tuple[int, npt.NDArray[np.bool_], int, int]]:
        """Of every object with pixels: id, the mask in its tight box (h, w), and the box's first row and column."""
        for object_id in self.ids:
            mask = self.label_map == object_id
            x1, y1, x2, y2 = (int(v) for v in mask_box(mask))
            if x2 > x1:
                yield object_id, mask[y1:y2, x1:x2], y1, x1

    def with_signals(self, signals: Sequence[Signals | None]) -> FrameMasks:
        """The same with other signals, one per object; the label map is shared."""
        result = replace(self, signals=tuple(signals))
        object.__setattr__(result, "_label_map", self._label_map)
        return result

    def with_hw(self, hw: tuple[int, int]) -> FrameMasks:
        """The same on a frame of ``hw``, for frames without objects that do not know their size."""
        return self if self.hw == hw else replace(self, hw=hw)

    def draw(self, frame: Frame | npt.NDArray[np.uint8] | Image.Image) -> npt.NDArray[np.uint8]:
        """A copy of the frame, uint8 RGB (H, W, 3), with coloured masks, their edges, ids, names and scores.

        Args:
            frame: a :class:`vidseg.Frame`, a uint8 array (H, W, 3), which is taken for RGB, or a PIL image.

        Raises:
            UsageError: something else, or a frame of another size.
        """
        from vidseg.outputs.overlay import draw_masks

        if isinstance(frame, Image.Image):
            rgb = np.asarray(frame.convert("RGB"))
        else:
            rgb = frame.rgb if isinstance(frame, Frame) else np.asarray(frame)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise UsageError(f"draw: a frame of uint8 RGB (H, W, 3) expected, got {rgb.dtype} {rgb.shape}")
        if self.hw is not None and rgb.shape[:2] != self.hw:
            (h, w), (height, width) = rgb.shape[:2], self.hw
            raise UsageError(f"draw: the frame is {w}x{h}, the masks are {width}x{height}")
        picture: npt.NDArray[np.uint8] = draw_masks(rgb, self) if self.ids else rgb.copy()
        return picture

    def to_coco(self) -> list[dict[str, Any]]:
        """The objects as COCO annotations: id, bbox (XYWH), area, RLE, score, name; they name no image and no category.

        ``image_id`` is the index of the frame; ``category_name`` is the label, None without one.
        """
        boxes = self.boxes.astype(float)
        boxes[:, 2:] -= boxes[:, :2]
        return [
            {
                "id": object_id,
                "image_id": self.frame_index,
                "category_name": label,
                "segmentation": rle.to_coco(),
                "bbox": box,
                "area": area(rle),
                "iscrowd": 0,
                "score": score,
            }
            for object_id, label, rle, box, score in zip(
                self.ids, self.labels, self.rles, boxes.tolist(), self.scores.tolist(), strict=True
            )
        ]

    def to_supervision(self, classes: Sequence[str] = ()) -> Any:
        """As ``supervision.Detections``: masks, boxes, scores, ids as ``tracker_id``, labels as ``class_name``.

        Args:
            classes: names of all classes; the place of an object's label among them is its ``class_id``. Without them
                there is none: annotators then need ``color_lookup=supervision.ColorLookup.TRACK``.

        Raises:
            UsageError: a label that is none of ``classes``; the package supervision is not installed.
        """
        if classes and (others := [label for label in dict.fromkeys(self.labels) if label not in classes]):
            raise UsageError(f"to_supervision: the classes {list(classes)} do not have {', '.join(map(repr, others))}")
        try:
            supervision = importlib.import_module("supervision")
        except ImportError as error:
            raise UsageError("to_supervision needs another package: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            mask=self.masks if self.ids else None,
            confidence=self.scores.copy(),
            class_id=np.array([classes.index(label or "") for label in self.labels], np.int64) if classes else None,
            tracker_id=np.array(self.ids, np.int64),
            data={"class_name": np.array([label or "" for label in self.labels], np.str_)},
        )

    def __eq__(self, other: object) -> bool:
        """The same objects with the same masks, on the same frame."""
        return same_values(self, other) if isinstance(other, FrameMasks) else NotImplemented

    def __repr__(self) -> str:
        """One line: the frame and its objects."""
        objects = ", ".join(f"{i} {label}" if label else str(i) for i, label in zip(self.ids, self.labels, strict=True))
        size = "" if self.hw is None else f", {self.hw[1]}x{self.hw[0]}"
        return f"FrameMasks(frame {self.frame_index}, {self.time_s:.3f} s{size}, objects: {objects or 'none'})"

    @property
    def stem(self) -> str:
        """What files made of this frame are called: the name of its own file without the suffix, else its index."""
        return f"{self.frame_index:05d}" if self.name is None else PurePath(self.name).stem


def decode_label_map(ids: Sequence[int], rles: Sequence[Rle], hw: tuple[int, int]) -> LabelMap:
    """Label map of masks by run-lengths; where they overlap the later object covers the earlier.

    Raises:
        OutputError: a mask has another size.
    """
    labels = np.zeros(hw, _dtype_for(ids))
    for object_id, rle in zip(ids, rles, strict=True):
        if (rle.height, rle.width) != hw:
            raise OutputError(f"mask of {rle.width}x{rle.height}, the frame is {hw[1]}x{hw[0]}")
        window, y0, x0 = decode_window(rle)
        labels[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]][window] = object_id
    return labels


def _dtype_for(ids: Sequence[int]) -> np.dtype[Any]:
    return np.min_scalar_type(max(ids, default=0))


class Sink(Protocol):
    """Where results go. ``write`` is called once per frame, in order."""

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Take one result."""
        ...

    def close(self) -> None:
        """Finish the files; what was written stays valid also when the run was interrupted."""
        ...
