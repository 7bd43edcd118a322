"""``masks.jsonl``: one line of json per frame, appended and flushed, never rewritten; the rest can be made from it.

    {"frame":0,"pts":0,"time_s":0.0,"objects":[{"id":1,"box":[x1,y1,x2,y2],"score":0.93,"label":null,
     "rle":{"size":[h,w],"counts":"..."}}]}

An object of which it was measured whether its mask can be trusted also has ``"signals":{"certainty":0.91,"since":12}``,
the known fields of :class:`vidseg.masks.trust.Signals`.

The line of a frame that is a file of its own also has ``"name":"IMG_0012.jpg"``.

The line of a frame before which a live source lost something also has ``"gap":{"seconds":7.31,"reconnects":2,
"dropped":0,"source_size":null,"reason":"..."}``, the fields of :class:`vidseg.types.Gap`.

The same results give the same bytes: float32 values are written with the fewest digits that bring them back exactly.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from vidseg.atomic_files import atomic_file
from vidseg.errors import InputError, OutputError, output_error
from vidseg.limits import HIGHEST_LIMIT
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import from_coco
from vidseg.masks.trust import Signals
from vidseg.types import Frame, Gap


class JournalSink:
    """Appends results to a journal; a line is in the file when :meth:`write` returns."""

    def __init__(self, path: Path, *, append: bool = False) -> None:
        """Create the journal, or go on with an existing one (call :func:`truncate_journal` first).

        Raises:
            OutputError: it cannot be opened for writing.
        """
        self._path = path
        try:
            self._file = path.open("ab", buffering=0)  # appending also after a cut-back line
            if not append:
                self._file.truncate(0)
        except OSError as error:
            raise output_error(path, error) from error
        self._length = self._file.tell() if append else 0

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Append the line of one frame.

        Raises:
            OutputError: disk full or the like; the journal still ends with a whole line.
        """
        line = journal_line(masks)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._file.truncate(self._length)
            raise output_error(self._path, error) from error
        self._length += len(line)

    def close(self) -> None:
        """Bring the journal to the disk and close it."""
        if self._file.closed:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise output_error(self._path, error) from error
        finally:
            self._file.close()


def journal_line(masks: FrameMasks) -> bytes:
    """The journal's line of one frame, with its line end.

    Raises:
        OutputError: a box or score is not a finite number.
    """
    rows = zip(masks.ids, masks.boxes, masks.scores, masks.labels, masks.rles, masks.signals, strict=True)
    record: dict[str, Any] = {
        "frame": masks.frame_index,
        "pts": masks.pts,
        "time_s": masks.time_s,
        "objects": [
            {
                "id": object_id,
                "box": [_shortest(v) for v in box],
                "score": _shortest(score),
                "label": label,
                "rle": rle.to_coco(),
            }
            | ({} if signals is None else {"signals": signals.to_dict()})
            for object_id, box, score, label, rle, signals in rows
        ],
    }
    if masks.name is not None:
        record["name"] = masks.name
    if masks.gap is not None:
        record["gap"] = dataclasses.asdict(masks.gap)
    try:
        return (json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n").encode()
    except ValueError as error:
        raise OutputError(f"frame {masks.frame_index}: a box or score is not a finite number") from error


def read_journal(path: Path) -> Iterator[FrameMasks]:
    """Results of a journal, in order. A last line without its end was cut off by a kill and is left out.

    Raises:
        InputError: no such file, or a line (named) that is no result.
    """
    for line, _ in _whole_lines(path):
        yield line


def truncate_journal(path: Path, before: int | None = None, names: Mapping[int, str] | None = None) -> int:
    """Cut a journal back: a half-written last line goes, and so do the frames with index >= ``before``.

    Where it calls an object something else than ``names`` do, by id, it is replaced by one that does not.

    Returns:
        The number of frames that stay.

    Raises:
        InputError: a line that is no result.
        OutputError: the file cannot be changed.
    """
    count, keep, renamed = 0, 0, False
    for masks, end in _whole_lines(path):
        if before is not None and masks.frame_index >= before:
            break
        count, keep = count + 1, end
        renamed = renamed or _renamed(masks, names or {}) != masks.labels
    try:
        os.truncate(path, keep)
    except OSError as error:
        raise output_error(path, error) from error
    if renamed:
        with atomic_file(path) as file:
            for masks in read_journal(path):
                file.write(journal_line(dataclasses.replace(masks, labels=_renamed(masks, names or {}))))
    return count


def _renamed(masks: FrameMasks, names: Mapping[int, str]) -> tuple[str | None, ...]:
    return tuple(names.get(i, label) for i, label in zip(masks.ids, masks.labels, strict=True))


def _whole_lines(path: Path) -> Iterator[tuple[FrameMasks, int]]:
    """Results and the position in the file after each."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                yield _parse(line, path, number), file.tell()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such journal") from error


def parse_line(line: bytes) -> FrameMasks:
    """The result that :func:`journal_line` has written.

    Raises:
        InputError: the line is no result.
    """
    return _parse(line, Path("masks.jsonl"), 1)


def _parse(line: bytes, path: Path, number: int) -> FrameMasks:
    try:
        record: Mapping[str, Any] = json.loads(line)
        objects = record["objects"]
        return FrameMasks(
            frame_index=int(record["frame"]),
            pts=int(record["pts"]),
            time_s=float(record["time_s"]),
            ids=tuple(int(o["id"]) for o in objects),
            boxes=np.array([o["box"] for o in objects], np.float32).reshape(len(objects), 4),
            scores=np.array([o["score"] for o in objects], np.float32),
            labels=tuple(None if o["label"] is None else str(o["label"]) for o in objects),
            rles=tuple(from_coco(o["rle"], HIGHEST_LIMIT) for o in objects),
            gap=_gap(record.get("gap")),
            name=_name(record.get("name")),
            signals=tuple(Signals.from_dict(o["signals"]) if "signals" in o else None for o in objects),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}, line {number}: not a line of a masks.jsonl ({error})") from error


def _gap(fields: Mapping[str, Any] | None) -> Gap | None:
    if fields is None:
        return None
    size = fields["source_size"]
    if size is not None:
        width, height = size
        size = int(width), int(height)
    return Gap(float(fields["seconds"]), int(fields["reconnects"]), int(fields["dropped"]), size, str(fields["reason"]))


def _name(value: str | None) -> str | None:
    """A bare file name: exports are called after it, and must stay in their folder."""
    if value is not None and (value in ("", ".", "..") or "\0" in value or PurePath(value).name != value):
        raise ValueError(f"name {value!r}: a file name without folders expected")
    return value


def _shortest(value: np.float32) -> float:
    return float(str(np.float32(value)))
