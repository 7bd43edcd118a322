"""Prompts as a user types them: ``[ID@][FRAME:]`` followed by a box, clicks or a mask file."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
    video: VideoInfo,
    first_frame: int = 0,
) -> list[Prompt]:
    """All prompts of a run, by frame and object id.

    Objects without an explicit id get the lowest free ones: masks keep the ids of their file, then boxes, then points,
    in the order given. ``first_frame`` is the frame meant when none is named.

    Raises:
        UsageError: malformed text, a box or point outside the ``video``'s frame.
        InputError: a mask that cannot be read or has another size.
    """
    prompts: list[Prompt] = []
    for text in masks:
        match = _split(text)
        if match["id"]:
            raise UsageError(f"--mask {text}: the ids come from the file; leave out '{match['id']}@'")
        for object_id, mask in read_annotation(mask_file(text), (video.height, video.width)).items():
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
            prompts.append(Prompt(frame, object_id, box=_box(text, match["rest"], video)))
        else:
            places, labels = _points(text, match["rest"], video)
            prompts.append(Prompt(frame, object_id, points=places, point_labels=labels))
    seen: set[tuple[int, int]] = set()
    for prompt in prompts:
        if (prompt.frame_index, prompt.object_id) in seen:
            raise UsageError(f"object {prompt.object_id} is prompted twice on frame {prompt.frame_index}")
        seen.add((prompt.frame_index, prompt.object_id))
    return sorted(prompts, key=lambda p: (p.frame_index, p.object_id))


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
        raise UsageError(f"{flag} {text}: {form} wanted")
    return values


def _box(text: str, body: str, video: VideoInfo) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = _numbers("--box", text, body, 4, "[ID@][FRAME:]x1,y1,x2,y2")
    if not (x1 < x2 and y1 < y2):
        raise UsageError(f"--box {text}: x1 < x2 and y1 < y2 wanted")
    if x1 >= video.width or y1 >= video.height or x2 <= 0 or y2 <= 0:
        raise UsageError(f"--box {text} lies outside the frame, which is {video.width}x{video.height} pixels")
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(video.width)), min(y2, float(video.height))


def _points(text: str, body: str, video: VideoInfo) -> tuple[tuple[tuple[float, float], ...], tuple[int, ...]]:
    places, labels = [], []
    for part in body.split("/"):
        labels.append(0 if part.startswith("-") else 1)
        x, y = _numbers("--point", text, part.removeprefix("-"), 2, "[ID@][FRAME:]x,y[/x,y...]")
        if not (0 <= x < video.width and 0 <= y < video.height):
            raise UsageError(f"--point {text} lies outside the frame, which is {video.width}x{video.height} pixels")
        places.append((x, y))
    if 1 not in labels:
        raise UsageError(f"--point {text}: at least one click must be on the object")
    return tuple(places), tuple(labels)
