"""What clients send, as JSON."""

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
