"""How masks are drawn on frames: ``--overlay-style KEY=VALUE``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vidseg.errors import UsageError
from vidseg.options import from_mapping, key_values

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
BACKGROUNDS = ("keep", "dim", "grey", "blur", "green")


@dataclass(frozen=True)
class OverlayStyle:
    """The looks of an overlay."""

    fill: float = 0.4
    """How opaque the colour inside a mask is: 0 (not at all) to 1."""
    contour: float = 1.0
    """Width of the line around a mask, in units that grow with the frame; 0: none."""
    labels: bool = True
    """Write ids and names."""
    scores: bool = False
    """Write scores too."""
    text: float = 1.0
    """Size of what is written; 1 is a thirtieth of the frame's smaller side."""
    trails: int = 0
    """Draw the way of each object's centre over the last so many frames."""
    background: str = "keep"
    """What is around the objects: keep, dim, grey, blur, green (a green screen), or a colour #rrggbb."""
    side_by_side: bool = False
    """The untouched frame on the left."""

    def __post_init__(self) -> None:
        """Refuse values that draw nothing sensible."""
        if not 0 <= self.fill <= 1:
            raise UsageError(f"--overlay-style fill={self.fill:g}: 0 to 1 expected")
        for name, value, most in (
            ("contour", self.contour, 20),
            ("text", self.text, 10),
            ("trails", self.trails, 10_000),
        ):
            if not 0 <= value <= most:
                raise UsageError(f"--overlay-style {name}={value:g}: 0 to {most} expected")
        if self.background not in BACKGROUNDS and not _COLOR.fullmatch(self.background):
            allowed = ", ".join(BACKGROUNDS)
            raise UsageError(f"--overlay-style background={self.background}: {allowed} or #rrggbb expected")

    @property
    def backdrop(self) -> tuple[int, int, int] | None:
        """RGB of one colour around the objects, where the background is one."""
        color = "#00b140" if self.background == "green" else self.background
        return tuple(bytes.fromhex(color[1:])) if color.startswith("#") else None  # type: ignore[return-value]


def parse_style(texts: Sequence[str]) -> OverlayStyle:
    """``KEY=VALUE[,KEY=VALUE...]`` texts of ``--overlay-style``.

    Raises:
        UsageError: an unknown key, or a value of another kind or size.
    """
    flag = "--overlay-style"
    parts = [part for text in texts for part in text.split(",") if part.strip()]
    quoted = [re.sub(r"=(#[^'\"]*)$", r"='\1'", part) for part in parts]  # a # begins a comment of YAML
    return from_mapping(OverlayStyle, key_values(flag, quoted), where=flag)
