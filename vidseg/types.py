"""What passes between the parts: frozen dataclasses and the protocols of trackers and sources.

They are in one module, longer than others, because it is what a plug-in imports.

The result is :class:`vidseg.masks.frame_masks.FrameMasks`.

Boxes are float32 XYXY in pixels of the original frame, x right, y down, right and bottom EXCLUSIVE
(``x2`` = last column + 1). Images are uint8 RGB of shape (H, W, 3). Object ids are positive ints, never reused
in a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from vidseg.errors import UsageError
from vidseg.names import check_label

if TYPE_CHECKING:  # torch is heavy, and nothing here needs it at run time
    import torch

Array = npt.NDArray[Any]
State: TypeAlias = "dict[str, torch.Tensor | int | float | str]"


def _show(value: object) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):  # array or tensor
        return f"{type(value).__name__}{tuple(value.shape)}:{value.dtype}"
    if isinstance(value, tuple) and len(value) > 4:
        return f"tuple[{len(value)}]"
    return repr(value)


def same_values(one: Any, other: Any) -> bool:
    """Whether two objects of one dataclass have equal fields, arrays with equal elements."""
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(one) if f.compare]
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b) for a, b in pairs)


class ShapeRepr:
    """Mixin: ``repr`` shows shapes of arrays instead of their values."""

    def __repr__(self) -> str:
        """Name, then every field with arrays shortened to their shape."""
        body = ", ".join(f"{f.name}={_show(getattr(self, f.name))}" for f in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({body})"


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a video before it is decoded. ``width`` and ``height`` are after display rotation."""

    width: int
    height: int
    fps: Fraction
    frame_count: int | None = None
    """Frames that the input names; a damaged or badly written one may hold fewer, or more."""
    frames_are_listed: bool = False
    """``frame_count`` was counted in a list of all frames: there cannot be more."""
    duration_s: float | None = None
    rotation: int = 0
    """Clockwise turn in degrees that was applied."""
    codec: str = ""
    name: str = "video"
    time_base: Fraction | None = None
    """Seconds per unit of ``Frame.pts``; None means one frame, ``1 / fps``."""
    mirrored: bool = False
    """Frames were mirrored besides the turn of ``rotation``."""
    stream: int = 0
    """Number of the stream in its file, as ffprobe shows it."""
    pixel_aspect: Fraction = Fraction(1)
    """Width of a pixel as it is shown, over its height (the sample aspect ratio)."""
    levels: tuple[float, float] | None = None
    """Values that became black and white where the source is deeper than 8 bits and does not say them."""
    deinterlaced: str = ""
    """FFmpeg's filter that made one image of the two fields of each frame."""
    frame_names: tuple[str, ...] = ()
    """File names of all frames, by index, where the frames are files (:attr:`Frame.name`)."""
    end: int | None = None
    """Index of the first frame that nobody asks for, where only a part of the video is read."""

    def __post_init__(self) -> None:
        """Refuse sizes and rates that no video can have."""
        if self.width < 1 or self.height < 1:
            raise UsageError(f"video size {self.width}x{self.height}: both sides must be at least 1")
        if self.fps <= 0:
            raise UsageError(f"video rate {self.fps} fps: must be positive")


@dataclass(frozen=True, slots=True)
class Gap:
    """What is missing, or changed, directly before a frame of a live source. Gaps that follow each other add up."""

    seconds: float = 0.0
    """Time without frames while the connection was lost."""
    reconnects: int = 0
    """Attempts that it took to connect again."""
    dropped: int = 0
    """Frames left out because they came faster than they were segmented."""
    source_size: tuple[int, int] | None = None
    """(width, height) that the source has from here on, where it changed; frames keep the first size."""
    reason: str = ""
    """Why the connection was lost."""

    def __add__(self, later: Gap | None) -> Gap:
        """Both, ``later`` after this one."""
        if later is None:
            return self
        return Gap(
            self.seconds + later.seconds,
            self.reconnects + later.reconnects,
            self.dropped + later.dropped,
            later.source_size or self.source_size,
            later.reason or self.reason,
        )


@dataclass(frozen=True, slots=True, repr=False)
class Frame(ShapeRepr):
    """One decoded frame: ``index`` is its ordinal in decode order (its identity), ``pts`` its stream timestamp."""

    index: int
    pts: int
    time_s: float
    rgb: npt.NDArray[np.uint8]
    gap: Gap | None = None
    """What a live source lost directly before this frame."""
    name: str | None = None
    """Name of the file that the frame was read from, with its suffix; None for frames of a video."""

    def __post_init__(self) -> None:
        """Check index, dtype and shape."""
        if not isinstance(self.index, Integral):
            raise UsageError(f"frame {self.index!r}: its index must be a whole number")
        object.__setattr__(self, "index", int(self.index))  # of any library
        if (
            not isinstance(self.rgb, np.ndarray)
            or self.rgb.dtype != np.uint8
            or self.rgb.ndim != 3
            or self.rgb.shape[2] != 3
        ):
            raise UsageError(f"frame {self.index}: rgb must be uint8 (H, W, 3), got {_show(self.rgb)}")

    def __eq__(self, other: object) -> bool:
        """Equal values, pixel by pixel."""
        return same_values(self, other) if isinstance(other, Frame) else NotImplemented

    @property
    def hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.rgb.shape[0]), int(self.rgb.shape[1])


@dataclass(frozen=True, slots=True, repr=False)
class Prompt(ShapeRepr):
    """Where one object is on one frame: a box and/or points (labels 1 object, 0 background), or a bool mask (H, W).

    The mask is copied: what becomes of the array that was given changes no prompt.
    """

    frame_index: int
    object_id: int
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()
    point_labels: tuple[int, ...] = ()
    mask: npt.NDArray[np.bool_] | None = None
    label: str | None = None
    """Name of the object, the class that files give it."""

    def __post_init__(self) -> None:
        """Check that the prompt says something and is well-formed."""
        if self.label is not None:
            check_label(f"object {self.object_id}", self.label)
        for name, least in (("frame_index", 0), ("object_id", 1)):
            number = getattr(self, name)
            if not isinstance(number, Integral) or isinstance(number, bool) or number < least:
                raise UsageError(
                    f"prompt frame {self.frame_index}, object {self.object_id}: expected frame >= 0 and object >= 1"
                )
            object.__setattr__(self, name, int(number))  # of any library
        if self.box is not None:
            object.__setattr__(self, "box", _numbers("box", self.box, 4))
        object.__setattr__(self, "points", tuple(_numbers("point", point, 2) for point in self.points))
        object.__setattr__(
            self, "point_labels", tuple(n.item() if hasattr(n, "item") else n for n in self.point_labels)
        )
        if len(self.points) != len(self.point_labels):
            raise UsageError(f"prompt has {len(self.points)} points but {len(self.point_labels)} labels")
        if any(label not in (0, 1) for label in self.point_labels):
            raise UsageError(f"point labels {self.point_labels}: allowed are 1 (object) and 0 (background)")
        if self.mask is not None and (self.box is not None or self.points):
            raise UsageError("a prompt is a mask, or a box and/or points, not both")
        if self.mask is None and self.box is None and not self.points:
            raise UsageError("empty prompt: give a box, points or a mask")
        if self.mask is not None and (np.asarray(self.mask).dtype != np.bool_ or np.ndim(self.mask) != 2):
            raise UsageError(f"prompt mask must be bool (H, W), got {_show(self.mask)}")
        if self.mask is not None:
            object.__setattr__(self, "mask", np.array(self.mask, order="C"))
        if self.box is not None:
            x1, y1, x2, y2 = self.box
            if x2 <= x1 or y2 <= y1:
                raise UsageError(f"box {x1:g},{y1:g},{x2:g},{y2:g}: expected finite numbers with x1 < x2 and y1 < y2")

    def __eq__(self, other: object) -> bool:
        """Equal values, pixel by pixel."""
        return same_values(self, other) if isinstance(other, Prompt) else NotImplemented


def _numbers(what: str, given: Any, count: int) -> tuple[Any, ...]:
    """Coordinates that may be of any library, as numbers of Python."""
    try:
        numbers = tuple(n if type(n) in (int, float) else float(n) for n in given)
        if isinstance(given, str) or len(numbers) != count or not all(np.isfinite(numbers)):
            raise ValueError
    except (TypeError, ValueError) as error:
        form = "x1, y1, x2, y2" if count == 4 else "x, y"
        raise UsageError(f"{what} {given!r}: finite numbers {form} expected") from error
    return numbers


@dataclass(frozen=True, slots=True, repr=False)
class Tracks(ShapeRepr):
    """What a tracker says about one frame: N objects.

    ``masks`` are the tracker's own object probabilities, a float32 tensor (N, h, w) on the tracker's device, in 0..1,
    covering the whole frame at any resolution, or None for trackers that only know boxes. ``exclusive``: a pixel's
    probabilities add up to one with that of the background (softmax); False: every object has its own background
    (sigmoid), and masks may overlap.
    """

    frame_index: int
    ids: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: tuple[str | None, ...] | None = None
    masks: torch.Tensor | None = None
    exclusive: bool = True

    def __post_init__(self) -> None:
        """Check that all fields speak of the same N objects."""
        n = len(self.ids)
        if self.boxes.shape != (n, 4) or self.scores.shape != (n,):
            raise UsageError(f"tracks of frame {self.frame_index}: shapes do not agree: {self!r}")
        if isinstance(self.masks, np.ndarray):
            raise UsageError(f"tracks of frame {self.frame_index}: masks must be a tensor on the tracker's device")
        if self.masks is not None and (self.masks.ndim != 3 or len(self.masks) != n):
            raise UsageError(f"tracks of frame {self.frame_index}: masks must be (N, h, w) with N={n}: {self!r}")
        if self.labels is not None and len(self.labels) != n:
            raise UsageError(f"tracks of frame {self.frame_index}: {len(self.labels)} labels for {n} objects")
        if n and (int(self.ids.min()) < 1 or len(np.unique(self.ids)) != n):
            raise UsageError(f"tracks of frame {self.frame_index}: ids must be positive, distinct: {self.ids.tolist()}")


@dataclass(frozen=True, slots=True, repr=False)
class Proposal(ShapeRepr):
    """An object that a detector sees on one frame: bool mask (H, W), score in 0..1, name of its class if it has one.

    A detector of boxes gives None for the mask, and the ``box``, XYXY in pixels: HQ-SAM draws it.
    """

    mask: npt.NDArray[np.bool_] | None
    score: float
    label: str | None = None
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        """Check that there is a mask or a box."""
        if self.mask is None and self.box is None:
            raise UsageError("a proposal of a detector has neither a mask nor a box")


@dataclass(frozen=True, slots=True)
class Rle:
    """A binary mask as COCO compressed run-lengths: ``counts`` as pycocotools writes them."""

    height: int
    width: int
    counts: bytes

    def to_coco(self) -> dict[str, Any]:
        """``{"size": [h, w], "counts": str}``, ready for json."""
        return {"size": [self.height, self.width], "counts": self.counts.decode("ascii")}


class Source(Protocol):
    """Where frames come from: iterated once, forwards. A context manager, which closes it at its end."""

    info: VideoInfo
    warnings: list[str]
    """What was lost (damage, truncation); grows while reading."""
    notes: list[str]
    """What a user should know of how it is read, and is no fault; grows while reading."""
    live: bool
    """It cannot be read again and has no known end: a camera, a stream, standard input."""

    def __iter__(self) -> Iterator[Frame]: ...

    def stop(self) -> None:
        """Deliver the frames that were read already, then end. May be called from any thread or signal handler."""
        ...

    def close(self) -> None:
        """Give back file handles and decoders."""
        ...

    def __enter__(self) -> Self:
        """The source itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()


@runtime_checkable
class Tracker(Protocol):
    """Who is where. One instance follows the objects of one video, frame by frame.

    A tracker may also have ``warnings`` and ``notes``, lists of str that grow while it works: what of its own input
    came to nothing (the run is then done in part), and what a user should know of how it worked; and ``classes``, the
    numbers that a data set gives the names of its labels (a detector may have them too). One that knows boxes
    only says so by ``gives_masks = False``; one that can let go of objects is a :class:`RemovesObjects` too.
    """

    lookahead: int
    """Frames it may hold back; 0 = causal, sys.maxsize = all of them until the end, which live sources do not have."""
    wants_masks: bool
    """True: every prompt must reach :meth:`step` as a mask (the pipeline draws boxes and points with HQ-SAM first)."""
    finds_objects: bool
    """True: it finds objects by itself; prompts are not needed and not accepted."""

    def start(self, video: VideoInfo) -> None:
        """Forget everything and prepare for a video."""
        ...

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        """Take the next frame and the prompts on it; return the frames that became final, in order."""
        ...

    def finish(self) -> list[Tracks]:
        """No more frames: return what was held back."""
        ...

    def state_dict(self) -> State:
        """All state as plain tensors and scalars: loading it continues bit-identically.

        It must not change with what the tracker does later: clone what is changed in place.
        """
        ...

    def load_state_dict(self, state: State) -> None:
        """Restore what :meth:`state_dict` gave."""
        ...


@runtime_checkable
class RemovesObjects(Protocol):
    """A tracker that can let go of objects. Without it an object that was found once is followed for ever."""

    can_remove: bool
    """False: not with these settings."""

    def remove(self, ids: Sequence[int]) -> None:
        """Forget objects and everything remembered of them; an id that is not followed is no error."""
        ...


@runtime_checkable
class Detector(Protocol):
    """Finds objects on single frames, for trackers that only follow what they are given.

    One that was asked for something has ``nothing_found``, the warning of a run in which it found nothing. It then
    searches also where a user's prompts name other objects.
    """

    def detect(self, frame: Frame) -> list[Proposal]:
        """Objects, best first; their masks may overlap."""
        ...
