"""What clients send and get, as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Rle(BaseModel):
    """Run-lengths as COCO has them."""

    size: tuple[int, int]
    counts: str | list[int]


class PromptBody(BaseModel):
    """Where an object is on the frame just seen, in pixels: a box (right and bottom exclusive), clicks, or a mask."""

    model_config = ConfigDict(extra="forbid")
    box: tuple[float, float, float, float] | None = None
    points: list[tuple[float, float]] = Field(default_factory=list, max_length=1000)
    labels: list[int] | None = None
    mask: Rle | None = None
    quick: bool = True
    """Answer at once, with the mask of a box or clicks as the whole frame shows it; false: with the final one."""

    def arguments(self) -> dict[str, Any]:
        """Those of :meth:`ServedSession.add`."""
        values = self.model_dump(exclude_none=True, exclude={"id"})
        return {name: value for name, value in values.items() if name != "points" or value}


class ObjectBody(PromptBody):
    """A new object."""

    label: str | None = Field(default=None, max_length=200)


class PreviewBody(PromptBody):
    """What ``add``, or with an id ``correct``, would show."""

    id: int | None = None


class SessionBody(BaseModel):
    """A new session. Without a video, frames are pushed with ``step``."""

    model_config = ConfigDict(extra="forbid")
    video: Annotated[str, Field(min_length=1)] | None = None
    max_objects: int | None = None
    detect_every: int = 0


class PropagateBody(BaseModel):
    """How far, and which way."""

    model_config = ConfigDict(extra="forbid")
    direction: Literal["forward", "backward"] = "forward"
    frames: int | None = Field(default=None, ge=1)


class SessionAnswer(BaseModel):
    """Where a session stands: the frame just seen (-1: none yet), and its video if it has one."""

    id: str
    frame: int
    objects: list[int]
    frames: int | None
    width: int | None
    height: int | None
    fps: float | None


class MaskAnswer(BaseModel):
    """A mask."""

    rle: Rle


class ObjectAnswer(MaskAnswer):
    """An object and its mask, which is not the final one where the prompt was ``quick``."""

    id: int


class ObjectMask(BaseModel):
    """An object on a frame, with ``rle`` or with ``polygons``: closed lines of points (x, y)."""

    id: int
    box: tuple[float, float, float, float]
    score: float
    label: str | None
    trust: float
    signals: dict[str, Any] | None = None
    rle: Rle | None = None
    polygons: list[list[tuple[float, float]]] | None = None


class MasksAnswer(BaseModel):
    """The masks of a frame."""

    frame: int
    pts: int
    time_s: float
    height: int | None
    width: int | None
    objects: list[ObjectMask]
