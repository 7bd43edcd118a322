"""Prompts as a user types them: ``[ID@][FRAME:]`` followed by a box, clicks or a mask file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from vidseg.errors import UsageError
from vidseg.masks.annotation import read_annotation
from vidseg.types import Prompt, VideoInfo

_BEYOND = 0.1  # of the side of a frame: as far as a box drawn by hand may end outside
_PREFIX = re.compile(r"^(?:(?P<id>\d+)@)?(?:(?P<frame>\d+):)?(?P<rest>.*)$", re.DOTALL)


@dataclass(frozen=True)
class TypedPrompt:
    """A box or clicks as typed, and what of it need not be typed."""

    flag: str
    text: str
    object_id: int
    frame: int
    body: str

    @property
    def whole(self) -> str:
        """The text with its id and its frame: it means the same wherever it stands."""
        return f"{self.object_id}@{self.frame}:{self.body}"


def number_prompts(
    boxes: Sequence[str], points: Sequence[str], taken: Iterable[int], *, first_frame: int = 0, first_free: int = 1
) -> list[TypedPrompt]:
    """Boxes, then clicks; those without an id get the lowest ones, from ``first_free`` on, that are not ``taken``."""
    entries = [("--box", text, _split(text)) for text in boxes] + [("--point", text, _split(text)) for text in points]
    used = {*taken, *(int(match["id"]) for _, _, match in entries if match["id"])}
    typed = []
    for flag, text, match in entries:
        object_id = int(match["id"]) if match["id"] else next(i for i in count(first_free) if i not in used)
        used.add(object_id)
        typed.append(TypedPrompt(flag, text, object_id, _frame(match, first_frame), match["rest"]))
    return typed


def parse_prompts(
    *,
    boxes: Sequence[str] = (),
    points: Sequence[str] = (),
    masks: Sequence[str] = (),
    prompts: Sequence[Prompt] = (),
    video: VideoInfo | None = None,
    first_frame: int = 0,
    first_found_id: int = 0,
) -> list[Prompt]:
    """All prompts of a run, by frame and object id; a box and clicks of one id on one frame are one prompt.

    Objects without an explicit id get the lowest free ones: masks keep the ids of their file, then boxes, then points,
    in the order given. ``prompts`` are there already. ``first_frame`` is the frame meant when none is named. Objects
    from ``first_found_id`` on may be there without a prompt; 0: none is.

    Raises:
        UsageError: malformed text; a box or point outside the ``video``'s frame, where there is a video yet.
        InputError: a mask that cannot be read or has another size.
    """
    prompts = list(prompts)
    for text in masks:
        prompts += read_masks(text, video, first_frame)
    for typed in number_prompts(boxes, points, {p.object_id for p in prompts}, first_frame=first_frame):
        if typed.flag == "--box":
            prompts.append(Prompt(typed.frame, typed.object_id, box=_box(typed.text, typed.body)))
        else:
            places, labels = _points(typed.text, typed.body)
            prompts.append(Prompt(typed.frame, typed.object_id, points=places, point_labels=labels))
    merged: dict[tuple[int, int], Prompt] = {}
    for prompt in prompts:
        key = prompt.frame_index, prompt.object_id
        merged[key] = _merge(merged[key], prompt) if key in merged else prompt
    for frame, object_id in sorted(merged):
        known = any(f < frame and i == object_id for f, i in merged) or 0 < first_found_id <= object_id
        if _only_removes(merged[frame, object_id]) and not known:
            raise UsageError(
                f"--point of object {object_id} on frame {frame}: at least one click must be on the object"
            )
    ordered = [merged[key] for key in sorted(merged)]
    return ordered if video is None else fit_prompts(ordered, (video.height, video.width))


def boxes_beyond(boxes: Sequence[str], size: tuple[int, int]) -> list[str]:
    """A note for each typed box that ends far outside of frames of ``size`` (height, width), where it is cut."""
    height, width = size
    notes = []
    for text in boxes:
        _, _, x2, y2 = _box(text, _split(text)["rest"])
        if x2 > width * (1 + _BEYOND) or y2 > height * (1 + _BEYOND):
            notes.append(
                f"--box {text} ends outside the frame, which is {width}x{height} pixels, and was cut at its edge: was "
                "it measured on a picture of another size?"
            )
    return notes


def read_masks(text: str, video: VideoInfo | None = None, first_frame: int = 0) -> list[Prompt]:
    """The objects of a ``--mask``, with the ids of its file.

    Raises:
        UsageError: an id in the text. InputError: the file cannot be read, or has another size than the ``video``.
    """
    match = _split(text)
    if match["id"]:
        raise UsageError(f"--mask {text}: the ids come from the file; leave out '{match['id']}@'")
    frame = _frame(match, first_frame)
    return [Prompt(frame, i, mask=mask) for i, mask in read_annotation(mask_file(text), video).items()]


def check_removals(removals: Mapping[int, int], prompts: Sequence[Prompt], *, others: bool) -> None:
    """Refuse to remove what is not there. ``others``: there may be objects without a prompt.

    Raises:
        UsageError: no such object, or a prompt of an object that is gone.
    """
    for object_id, frame in removals.items():
        frames = [p.frame_index for p in prompts if p.object_id == object_id]
        if late := [f for f in frames if f >= frame]:
            raise UsageError(
                f"--remove {object_id}@{frame}: object {object_id} is prompted on frame {late[0]}, but its id is never"
                " used again: give the prompt another id"
            )
        if not frames and not others:
            raise not_there(object_id, frame, (p.object_id for p in prompts if p.frame_index < frame))


def not_there(object_id: int, frame: int, there: Iterable[int]) -> UsageError:
    """The error of an object that is removed and was not ``there``."""
    ids = ", ".join(map(str, sorted({*there}))) or "none"
    return UsageError(f"--remove {object_id}@{frame}: no object {object_id} before this frame; there are: {ids}")


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Refuse what is wrong whatever the frames are.

    Raises:
        UsageError: an id twice on a frame, a mask without a pixel, two names for one id.
    """
    seen: set[tuple[int, int]] = set()
    names: dict[int, str] = {}
    for prompt in prompts:
        if prompt.label is not None and names.setdefault(prompt.object_id, prompt.label) != prompt.label:
            raise UsageError(
                f"object {prompt.object_id} has two names, '{names[prompt.object_id]}' and '{prompt.label}'"
            )
        if (prompt.frame_index, prompt.object_id) in seen:
            raise UsageError(f"{_place(prompt)} is given twice")
        seen.add((prompt.frame_index, prompt.object_id))
        if prompt.mask is not None and not prompt.mask.any():
            raise UsageError(f"{_place(prompt)}: the mask is empty")


def _place(prompt: Prompt) -> str:
    return f"object {prompt.object_id} on frame {prompt.frame_index}"


def fit_prompts(prompts: Sequence[Prompt], size: tuple[int, int]) -> list[Prompt]:
    """The prompts with their boxes cut to frames of ``size`` (height, width).

    Raises:
        UsageError: a box or point outside the frame, a mask of another size or without a pixel, an id twice on a frame.
    """
    height, width = size
    check_prompts(prompts)
    fitted: list[Prompt] = []
    for prompt in prompts:
        where = _place(prompt)
        if prompt.mask is not None and prompt.mask.shape != size:
            got = f"{prompt.mask.shape[1]}x{prompt.mask.shape[0]}"
            raise UsageError(f"{where}: the mask has {got} pixels, the frame {width}x{height}")
        for x, y in prompt.points:
            if not (0 <= x < width and 0 <= y < height):
                raise UsageError(f"{where}: point {x:g},{y:g} lies outside the frame, which is {width}x{height} pixels")
        if prompt.box is not None:
            x1, y1, x2, y2 = prompt.box
            if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
                box = f"{x1:g},{y1:g},{x2:g},{y2:g}"
                raise UsageError(f"{where}: box {box} lies outside the frame, which is {width}x{height} pixels")
            cut = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
            prompt = prompt if cut == prompt.box else replace(prompt, box=cut)
        fitted.append(prompt)
    return fitted


def _merge(first: Prompt, second: Prompt) -> Prompt:
    where = f"object {first.object_id} is prompted twice on frame {first.frame_index}"
    if first.mask is not None or second.mask is not None:
        raise UsageError(f"{where}: a mask is used unchanged; leave out the mask, or the box and clicks")
    if first.box is not None and second.box is not None:
        raise UsageError(f"{where}: one box only, to which clicks may be added")
    return replace(
        first,
        box=first.box or second.box,
        points=first.points + second.points,
        point_labels=first.point_labels + second.point_labels,
    )


def _only_removes(prompt: Prompt) -> bool:
    return prompt.mask is None and prompt.box is None and 1 not in prompt.point_labels


def mask_file(text: str) -> Path:
    """The file of a ``--mask``."""
    return Path(_split(text)["rest"])


def _split(text: str) -> dict[str, str]:
    match = _PREFIX.match(text)
    assert match is not None  # the pattern matches every text
    return {key: value or "" for key, value in match.groupdict().items()}


def _frame(match: dict[str, str], first_frame: int) -> int:
    return int(match["frame"]) if match["frame"] else first_frame


def _numbers(flag: str, text: str, body: str, length: int, form: str) -> list[float]:
    try:
        values = [float(v) for v in body.split(",")]
    except ValueError:
        values = []
    if len(values) != length:
        raise UsageError(f"{flag} {text}: expected {form}")
    return values


def _box(text: str, body: str) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = _numbers("--box", text, body, 4, "[ID@][FRAME:]x1,y1,x2,y2")
    if not (x1 < x2 and y1 < y2):
        raise UsageError(f"--box {text}: expected x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def _points(text: str, body: str) -> tuple[tuple[tuple[float, float], ...], tuple[int, ...]]:
    places, labels = [], []
    for part in body.split("/"):
        labels.append(0 if part.startswith("-") else 1)
        x, y = _numbers("--point", text, part.removeprefix("-"), 2, "[ID@][FRAME:]x,y[/x,y...]")
        places.append((x, y))
    return tuple(places), tuple(labels)
