"""Auto-annotation functions for CVAT's SDK, command line and agents (pip install 'vidseg[cvat]').

    cvat-cli task auto-annotate 137 --function-module vidseg.integrations.cvat -p task=str:detect
    cvat-cli function create-native "vidseg" --function-module vidseg.integrations.cvat -p task=str:track
    cvat-cli function run-agent 12 --function-module vidseg.integrations.cvat -p task=str:track

``detect`` finds objects on still frames, ``track`` follows a shape of the user's from frame to frame, ``interact``
draws a mask from clicks and a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.errors import UsageError
from vidseg.masks.boxes import mask_box
from vidseg.masks.polygons import Line, one_polygon
from vidseg.masks.rle import encode
from vidseg.runtime import resolve_device

try:
    import cvat_sdk.auto_annotation as cvataa
    from cvat_sdk.masks import decode_mask, encode_mask
except ImportError as error:
    raise UsageError("vidseg.integrations.cvat needs another package: pip install 'vidseg[cvat]'") from error

Rgb = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Task = Literal["detect", "track", "interact"]


def create(
    task: Task = "track",
    *,
    model: str = "compact",
    tracker: str = "xmem",
    text: str = "",
    max_objects: int = 10,
    device: str = "auto",
    offline: bool = False,
) -> DetectFunction | TrackFunction | InteractFunction:
    """The function that CVAT calls.

    Args:
        task: what it does.
        model, tracker, device, offline: as for `vidseg run`.
        text: for ``detect``, what to look for: "person. red car"; the labels of the task have these names. Without it
            every object found has the label "object".
        max_objects: for ``detect``, objects of a frame at most.

    Raises:
        UsageError: an unknown task or name. WeightsError: weights are missing.
    """
    settings: dict[str, Any] = {"model": model, "tracker": tracker, "device": device, "offline": offline}
    match task:
        case "detect":
            return DetectFunction(settings, text, max_objects)
        case "track":
            return TrackFunction(settings)
        case "interact":
            return InteractFunction(settings)
    raise UsageError(f"task {task!r}: allowed are detect, track, interact")


class DetectFunction:
    """Objects of still frames."""

    def __init__(self, settings: dict[str, Any], text: str, max_objects: int) -> None:
        from vidseg import Session

        names = [phrase.strip() for phrase in text.split(".") if phrase.strip()] or ["object"]
        self._ids = {name: number for number, name in enumerate(names)}
        self.spec = cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(name, number) for name, number in self._ids.items()]
        )
        if text:
            settings |= {"detector": "text", "detector_options": {"text": text}}
        self._session = Session(max_objects=max_objects, **settings)

    def detect(self, context: Any, image: Any) -> list[Any]:
        """Masks, or polygons where CVAT wants those, of the objects on an image."""
        self._session.reset()
        masks = self._session.step(_rgb(image))
        least = context.conf_threshold or 0.0
        shapes = []
        for mask, score, label in zip(masks.masks, masks.scores, masks.labels, strict=True):
            if score < least or (number := self._ids.get(label or "object")) is None:
                continue
            if context.conv_mask_to_poly:
                shapes.append(cvataa.polygon(number, _points(_outline(mask))))
            else:
                shapes.append(cvataa.mask(number, encode_mask(mask)))
        return shapes


@dataclass
class TrackState:
    """A shape that is followed: a session of its own, and how it is given back."""

    session: Any
    type: str


class TrackFunction:
    """Follows a mask, a polygon or a rectangle from frame to frame."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from vidseg import load_sam

        self.spec = cvataa.TrackingFunctionSpec(supported_shape_types=["mask", "polygon", "rectangle"])
        self._tracker, self._where = settings["tracker"], {name: settings[name] for name in ("device", "offline")}
        device = resolve_device(settings["device"])
        self._sam = load_sam(settings["model"], device=device, offline=settings["offline"])

    def preprocess_image(self, context: Any, image: Any) -> Rgb:
        """The pixels of an image."""
        return _rgb(image)

    def init_tracking_state(self, context: Any, pp_image: Rgb, shape: Any) -> TrackState:
        """Begin to follow a shape of an image."""
        from vidseg import Session

        session = Session(model=self._sam, tracker=self._tracker, **self._where)
        session.step(pp_image)
        if shape.type == "rectangle":
            x1, y1, x2, y2 = shape.points
            session.add(box=(x1, y1, x2, y2))
        else:
            session.add(mask=_mask_of(shape, (pp_image.shape[0], pp_image.shape[1])))
        return TrackState(session, shape.type)

    def track(self, context: Any, pp_image: Rgb, state: TrackState) -> Any:
        """Where the shape is on the next image; None: it is not seen."""
        masks = state.session.step(pp_image)
        if not masks.ids:
            return None
        mask = masks.masks[0]
        if state.type == "rectangle":
            points = [float(value) for value in mask_box(mask)]
        elif state.type == "polygon":
            points = _points(_outline(mask))
        else:
            points = encode_mask(mask)
        return cvataa.TrackableShape(type=state.type, points=points)


class InteractFunction:
    """A mask from clicks and a box."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from vidseg import Session

        self.spec = cvataa.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)
        self._session = Session(**settings)

    def preprocess_image(self, context: Any, image: Any) -> Rgb:
        """The pixels of an image."""
        return _rgb(image)

    def detect(self, context: Any, pp_image: Rgb, prompts: Any) -> list[Any]:
        """The mask that the prompts show."""
        points = [*prompts.pos_points, *prompts.neg_points]
        labels = [1] * len(prompts.pos_points) + [0] * len(prompts.neg_points)
        box = prompts.bounding_box and (*prompts.bounding_box[0], *prompts.bounding_box[1])
        self._session.reset()
        self._session.step(pp_image)
        mask = self._session.preview(box=box, points=points, labels=labels or None)
        return [cvataa.InteractionResultShape(type="mask", points=encode_mask(mask))]


def _rgb(image: Any) -> Rgb:
    return np.array(image.convert("RGB"))


def _mask_of(shape: Any, hw: tuple[int, int]) -> Mask:
    if shape.type == "mask":
        mask: Mask = decode_mask(shape.points, image_width=hw[1], image_height=hw[0])
        return mask
    canvas = np.zeros(hw, np.uint8)
    corners = np.array(shape.points, np.float64).reshape(-1, 2) - 0.5  # theirs are edges, OpenCV's are centres
    cv2.fillPoly(canvas, [np.rint(corners).astype(np.int32)], 1)
    return canvas.astype(np.bool_)


def _outline(mask: Mask) -> Line:
    return one_polygon(encode(mask)) + 0.5


def _points(line: Line | Sequence[float]) -> list[float]:
    return [float(value) for value in np.asarray(line).ravel()]
