"""The forms in which Python code gives prompts: tuples, arrays, texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vidseg.errors import UsageError
from vidseg.types import Prompt

BoxLike: TypeAlias = Sequence[float] | npt.NDArray[Any]
"""x1, y1, x2, y2 in pixels, right and bottom exclusive."""
PointsLike: TypeAlias = Sequence[Sequence[float]] | Sequence[float] | npt.NDArray[Any]
"""(x, y) in pixels, one or many."""
MaskLike: TypeAlias = npt.NDArray[Any]
"""An array (H, W): bool, or whole numbers of which 0 is background and one other value the object."""
Boxes: TypeAlias = str | npt.NDArray[Any] | Sequence[float | str | BoxLike]
"""One box or several; a text is what the command line takes: [ID@][FRAME:]x1,y1,x2,y2."""
Points: TypeAlias = str | npt.NDArray[Any] | Sequence[float | str | Sequence[float]]
"""One click or several, each on an object of its own; a text is [ID@][FRAME:]x,y[/x,y...], a - marks background."""
MaskFiles: TypeAlias = str | Path | Sequence[str | Path]
"""One mask file or several; a text is [FRAME:]FILE."""

Names: TypeAlias = str | Sequence[str] | Mapping[int, str]
"""Names of objects by id; a text is ID=NAME."""
Removals: TypeAlias = str | Sequence[str] | Mapping[int, int]
"""Objects to forget: id to the first frame without it; a text is ID@FRAME."""


def make_prompt(
    frame_index: int,
    object_id: int,
    *,
    box: BoxLike | None = None,
    points: PointsLike = (),
    labels: Sequence[int] | int | None = None,
    mask: MaskLike | None = None,
    label: str | None = None,
) -> Prompt:
    """A prompt from what a user gives. ``labels`` are 1 on the object, 0 on background (default: all 1).

    Raises:
        UsageError: what cannot be right.
    """
    places = _rows("points", points, 2)
    marks = (1,) * len(places) if labels is None else _marks(labels)
    corners = None if box is None else _rows("box", box, 4)
    if corners is not None and len(corners) != 1:
        raise UsageError(f"box {box!r}: one box x1, y1, x2, y2 expected")
    return Prompt(
        frame_index,
        object_id,
        box=None if corners is None else (corners[0][0], corners[0][1], corners[0][2], corners[0][3]),
        points=tuple((x, y) for x, y in places),
        point_labels=marks,
        mask=None if mask is None else _mask(mask),
        label=label,
    )


def box_texts(boxes: Boxes) -> tuple[str, ...]:
    """Boxes as the command line takes them.

    Raises:
        UsageError: something else than texts and four numbers.
    """
    return _texts("box", boxes, 4)


def point_texts(points: Points) -> tuple[str, ...]:
    """Clicks as the command line takes them.

    Raises:
        UsageError: something else than texts and two numbers.
    """
    return _texts("point", points, 2)


def mask_texts(files: MaskFiles) -> tuple[str, ...]:
    """Mask files as the command line takes them.

    Raises:
        UsageError: something else than texts and paths.
    """
    given = [files] if isinstance(files, (str, Path)) else list(files)
    for file in given:
        if not isinstance(file, (str, Path)):
            kind = type(file).__name__
            raise UsageError(f"mask: names of files expected, got {kind}; arrays go into prompts=[Prompt(mask=...)]")
    return tuple(map(str, given))


def removal_texts(removals: Removals) -> tuple[str, ...]:
    """Removals as the command line takes them.

    Raises:
        UsageError: something else than texts and a mapping.
    """
    return _by_id("remove", removals, "@", "{id: frame} or texts ID@FRAME")


def name_texts(names: Names) -> tuple[str, ...]:
    """Names of objects as the command line takes them.

    Raises:
        UsageError: something else than texts and a mapping.
    """
    return _by_id("label", names, "=", "{id: name} or texts ID=NAME")


def prompts_of(given: object) -> tuple[Prompt, ...]:
    """``given`` if it is an iterable of prompts.

    Raises:
        UsageError: it is something else.
    """
    prompts = (given,) if isinstance(given, (Prompt, str)) or not isinstance(given, Iterable) else tuple(given)
    for prompt in prompts:
        if not isinstance(prompt, Prompt):
            what = "texts and numbers go into box, point and mask"
            raise UsageError(f"prompts: Prompt objects expected, got {prompt!r}; {what}")
    return prompts


def check_count(name: str, count: object, least: int) -> int:
    """``count``, a whole number of at least ``least`` (UsageError: it is something else)."""
    if not isinstance(count, Integral) or isinstance(count, bool) or count < least:
        raise UsageError(f"{name} {count!r}: a whole number of at least {least} expected")
    return int(count)


def _marks(labels: Any) -> tuple[int, ...]:
    try:
        marks = np.atleast_1d(np.asarray(labels, np.float64))
        if marks.ndim != 1 or (marks % 1 != 0).any():
            raise ValueError
    except (TypeError, ValueError) as error:
        raise UsageError(f"labels {labels!r}: 1 (on the object) or 0 (background) for every click expected") from error
    return tuple(map(int, marks))


def _by_id(option: str, given: Any, sign: str, form: str) -> tuple[str, ...]:
    if isinstance(given, Mapping):
        return tuple(f"{object_id}{sign}{value}" for object_id, value in given.items())
    texts = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{option} {given!r}: {form} expected")
    return texts


def _texts(name: str, given: Any, count: int) -> tuple[str, ...]:
    if isinstance(given, str):
        return (given,)
    items = list(given) if isinstance(given, Iterable) else [given]
    if not any(isinstance(item, str) for item in items):
        return tuple(map(_text, _rows(name, given, count)))
    texts: list[str] = []
    for item in items:
        texts += [item] if isinstance(item, str) else map(_text, _rows(name, [item], count))
    return tuple(texts)


def _text(numbers: Sequence[float]) -> str:
    return ",".join(repr(number).removesuffix(".0") for number in numbers)


def _rows(name: str, given: Any, count: int) -> list[tuple[float, ...]]:
    """One row of ``count`` numbers, or several."""
    try:
        rows = np.asarray(given, np.float64)
        if rows.size == 0:
            return []
        rows = rows.reshape(1, -1) if rows.ndim == 1 else rows
        if rows.ndim != 2 or rows.shape[1] != count or not np.isfinite(rows).all():
            raise ValueError
    except (TypeError, ValueError) as error:
        form = "(x, y)" if count == 2 else "(x1, y1, x2, y2)"
        raise UsageError(f"{name} {given!r}: finite numbers {form} expected") from error
    return [tuple(row) for row in rows.tolist()]


def _mask(given: Any) -> npt.NDArray[np.bool_]:
    mask = np.asarray(given)
    if mask.dtype == np.bool_:
        return mask
    if mask.dtype.kind not in "ui" or len(values := np.unique(mask)) > 2 or (len(values) == 2 and values[0] != 0):
        what = f"{mask.dtype} {mask.shape}"
        raise UsageError(f"mask: an array (H, W) of bool, or of 0 and one other whole number, expected, got {what}")
    return mask != 0
