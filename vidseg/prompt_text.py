"""Prompts as a user types them: ``[ID@][FRAME:]`` followed by a box, clicks or a mask file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vidseg.errors import UsageError
from vidseg.masks.annotation import read_annotation
from vidseg.types import Prompt, VideoInfo

_PREFIX = re.compile(r"^(?:(?P<id>\d+)@)?(?:(?P<frame>\d+):)?(?P<rest>.*)$", re.DOTALL)


def parse_prompts(
    *,
    boxes: Sequence[str] = (),
    points: Sequence[str] = (),
    masks: Sequence[str] = (),
    prompts: Sequence[Prompt] = (),
    video: VideoInfo | None = None,
    first_frame: int = 0,
) -> list[Prompt]:
    """All prompts of a run, by frame and object id; a box and clicks of one id on one frame are one prompt.

    Objects without an explicit id get the lowest free ones: masks keep the ids of their file, then boxes, then points,
    in the order given. ``prompts`` are there already. ``first_frame`` is the frame meant when none is named.

    Raises:
        UsageError: malformed text; a box or point outside the ``video``'s frame, where there is a video yet.
        InputError: a mask that cannot be read or has another size.
    """
    prompts = list(prompts)
    for text in masks:
        match = _split(text)
        if match["id"]:
            raise UsageError(f"--mask {text}: the ids come from the file; leave out '{match['id']}@'")
        for object_id, mask in read_annotation(mask_file(text), video).items():
            prompts.append(Prompt(_frame(match, first_frame), object_id, mask=mask))
    taken = {p.object_id for p in prompts}
    entries = [("--box", t) for t in boxes] + [("--point", t) for t in points]
    taken |= {int(m["id"]) for _, t in entries if (m := _split(t))["id"]}
    for flag, text in entries:
        match = _split(text)
        object_id = int(match["id"]) if match["id"] else next(i for i in range(1, len(taken) + 2) if i not in taken)
        taken.add(object_id)
        frame = _frame(match, first_frame)
        if flag == "--box":
            prompts.append(Prompt(frame, object_id, box=_box(text, match["rest"])))
        else:
            places, labels = _points(text, match["rest"])
            prompts.append(Prompt(frame, object_id, points=places, point_labels=labels))
    merged: dict[tuple[int, int], Prompt] = {}
    for prompt in prompts:
        key = prompt.frame_index, prompt.object_id
        merged[key] = _merge(merged[key], prompt) if key in merged else prompt
    for frame, object_id in sorted(merged):
        if _only_removes(merged[frame, object_id]) and not any(f < frame and i == object_id for f, i in merged):
            raise UsageError(
                f"--point of object {object_id} on frame {frame}: at least one click must be on the object"
            )
    ordered = [merged[key] for key in sorted(merged)]
    return ordered if video is None else fit_prompts(ordered, (video.height, video.width))


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


def _numbers(flag: str, text: str, body: str, count: int, form: str) -> list[float]:
    try:
        values = [float(v) for v in body.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
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
