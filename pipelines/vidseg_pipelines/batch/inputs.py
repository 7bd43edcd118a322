"""What a user names - files, folders, globs, manifests - as one request per video."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg.address import redact
from vidseg.config import RunConfig, from_mapping, key_values
from vidseg.errors import InputError, UsageError, VidsegError, did_you_mean
from vidseg.files import is_pattern, matches, natural_key
from vidseg.options import checked_values
from vidseg.outputs.layout import MANIFEST
from vidseg.storage import Storage, object_url, url_of
from vidseg.text import read_lines, whole
from vidseg.video.folders import FolderContent, is_video, listed, look_into, video_of
from vidseg.weights.catalog import CATALOG, split_added, split_model

MANIFEST_SUFFIXES = (".csv", ".jsonl")
COLUMNS = ("input", "output", "box", "point", "mask", "label", "boxes", "frames", "max_objects")
_NO_COLUMN = "(a cell without a column)"
_LISTS = ("box", "point", "mask", "label")
_MASK = re.compile(r"^(\d+:)?(.*)$", re.DOTALL)

Notice = Callable[[str], object]
"""Is called with a line for the user."""


@dataclass(frozen=True)
class Request:
    """One video and its settings; ``name`` is the output's name that a manifest asks for."""

    config: RunConfig
    name: str | None = None


def expand(inputs: Sequence[str], base: RunConfig, notice: Notice = lambda text: None) -> Iterator[Request]:
    """One request per video, in the order given; inside folders and globs in natural order. Manifests are streamed.

    A folder stands for the videos in it and for the folders in it that hold images or one video; when it has none of
    them, for itself as a folder of images. ``.csv`` and ``.jsonl`` files are manifests. A file that does not exist is a
    request like others and fails alone. ``notice`` is called with what of a folder is left out.

    Raises:
        UsageError: nothing named, a glob or folder without videos, standard input, a malformed manifest (with line).
        InputError: a manifest or folder cannot be read.
    """
    if not inputs:
        raise UsageError("no videos given: vidseg batch INPUT... (files, folders, globs, or a .csv or .jsonl manifest)")
    base = common_settings(base)
    for text in inputs:
        if text == "-":
            raise UsageError("-: standard input is one video; use vidseg run -")
        for name in _named(text, notice):
            if Path(name).suffix.lower() in MANIFEST_SUFFIXES:
                yield from _manifest(Path(name), base)
            else:
                yield Request(_with(base, {"input": name}, Path.cwd(), "batch"))


def _named(text: str, notice: Notice) -> list[str]:
    """The videos and manifests that an argument stands for."""
    if url := object_url(text):
        if not any(mark in text for mark in "*?["):
            return [text]
        names, empty = Storage(url).matching(), f"{text}: no object of that name"
    elif "://" not in text and is_pattern(text):
        found = matches(text)
        names = [name for path in found for name in (_in_folder(Path(path), notice) if Path(path).is_dir() else [path])]
        empty = f"{text}: no {'videos or images in folders' if found else 'file'} of that name"
    elif os.path.isdir(text):  # noqa: PTH112  (False for names that no file can have)
        names, empty = _in_folder(Path(text), notice), f"{text}: a folder without videos or images"
    else:
        return [text]
    if not names:
        raise UsageError(empty)
    return names


def _in_folder(folder: Path, notice: Notice) -> list[str]:
    content = look_into(folder)
    if _is_run(content):
        return []
    stems = {path.stem for path in content.videos}
    unnamed = [path for path in content.others if path.stem not in stems and is_video(path)]  # a preview has its stem
    videos = {*content.videos, *unnamed, *filter(_is_one_video, content.folders)}
    if not videos and content.images:
        return [str(folder)]
    left = [path for path in (*content.images, *content.others, *content.folders) if path not in videos]
    if left:
        names = [f"{path.name}/" if path in content.folders else path.name for path in left]
        notice(f"{folder}: left out, as neither a video nor the folder of one: {listed(names)}")
    return [str(path) for path in sorted(videos, key=lambda path: natural_key(path.name))]


def _is_one_video(folder: Path) -> bool:
    try:
        content = look_into(folder)
        return not _is_run(content) and (bool(content.images) or video_of(folder)[0] is not None)
    except InputError:
        return False


def _is_run(content: FolderContent) -> bool:
    """Whether `vidseg run` wrote a folder: its overlay is no input."""
    return any(path.name == MANIFEST for path in content.others)


def _manifest(path: Path, base: RunConfig) -> Iterator[Request]:
    """Rows of a CSV (several prompts in a cell: ``;`` between) or of a JSONL (text or lists of texts)."""
    empty = True
    for line, row in _rows(path):
        where = f"{path}, line {line}"
        yield request_of(row, base, path.parent, where)
        empty = False
    if empty:
        raise UsageError(f"{path}: a manifest without videos")


def request_of(row: Mapping[str, Any], base: RunConfig, folder: Path, where: str) -> Request:
    """One row of a manifest in ``folder``, without the cells that are empty.

    Raises:
        UsageError: an unknown column, or a value that is none for it; ``where`` names the row.
    """
    for column in row:
        if column not in COLUMNS:
            hint = did_you_mean(column, COLUMNS)
            raise UsageError(f"{where}: unknown column '{column}'{hint}: allowed are {', '.join(COLUMNS)}")
    name = row.get("output")
    if not isinstance(row.get("input") or None, str) or not isinstance(name, str | None):
        raise UsageError(f"{where}: 'input' (a video) and 'output' (a name, or none) must be strings")
    return Request(_with(base, {k: v for k, v in row.items() if k != "output"}, folder, where), name)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, the cells that are not empty); rows without any are left out."""
    lines, line = read_lines(path), 1
    try:
        if path.suffix.lower() == ".csv":
            header = next(lines, "")
            mark = next((mark for mark in ",;\t" if mark in header), ",")  # spreadsheets write what their country has
            reader = csv.DictReader(itertools.chain([header], lines), restkey=_NO_COLUMN, strict=True, delimiter=mark)
            _check_header(path, reader.fieldnames or ())
            for cells in reader:
                if row := {k.strip(): read_cell(k.strip(), v) for k, v in cells.items() if any(v or ())}:
                    yield reader.line_num, row
                line = reader.line_num + 1  # where the next row begins
            return
        for line, text in enumerate(lines, 1):
            if text.strip():
                row = json.loads(text)
                if not isinstance(row, dict):
                    raise UsageError(f"{path}, line {line}: expected a json object per line")
                yield line, {k: v for k, v in row.items() if v is not None}
    except VidsegError:
        raise
    except (csv.Error, ValueError, RecursionError) as error:  # also numbers without end
        reason = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
        raise UsageError(f"{path}, line {line}: not a valid {path.suffix} row ({reason})") from error


def _check_header(path: Path, columns: Sequence[str]) -> None:
    names = [name.strip() for name in columns]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{path}, line 1: the column '{twice}' is there twice")


def read_cell(column: str, text: str) -> Any:
    """What the text of a cell of a table means: several prompts (``;`` between), a number, or just that."""
    if column in _LISTS:
        return tuple(part.strip() for part in text.split(";") if part.strip())
    number = whole(text) if column == "max_objects" else None
    return text if number is None else number


def common_settings(base: RunConfig) -> RunConfig:
    """The settings that all videos of a call have in common; files in them are looked for here, get absolute paths."""
    here = Path.cwd()
    config = from_mapping(RunConfig, vars(base), where="batch")
    return dataclasses.replace(
        config,
        output=None,
        model=_absolute_model(config.model),
        mask=_masks(config.mask, here),
        from_=None if config.from_ is None else (config.from_[0], Path(_absolute(str(config.from_[1]), here))),
        boxes=None if config.boxes is None else Path(_absolute(str(config.boxes), here)),
        classes=None if config.classes is None else Path(_absolute(str(config.classes), here)),
        tracker_options=_with_files(config.tracker_options | key_values("--tracker-option", config.tracker_option)),
        tracker_option=(),
        detector_options=_with_files(config.detector_options | key_values("--detector-option", config.detector_option)),
        detector_option=(),
    )


def _absolute_model(model: str) -> str:
    """A model whose files have absolute paths."""
    base, added = split_added(model)
    if added is not None:
        return f"{_absolute_model(base)}+{_absolute(str(added), Path.cwd())}"
    name, weights = split_model(model)
    if weights is None:
        return model
    path = _absolute(str(weights), Path.cwd())
    return f"{name}={path}" if name else path


def _with(base: RunConfig, row: Mapping[str, Any], folder: Path, where: str) -> RunConfig:
    """``base`` with the settings of one video; its files are looked for in ``folder`` and get absolute paths."""
    values = checked_values(RunConfig, row, where=where)
    if redact(values["input"]) != values["input"]:
        raise UsageError(
            f"{where}: {redact(values['input'])}: an address with a password or a query would be written into the "
            "folder of the batch; segment it with vidseg run"
        )
    values["input"] = _absolute(values["input"], folder)
    if "mask" in values:
        values["mask"] = _masks(values["mask"], folder)
    if values.get("from_") is not None:
        values["from_"] = values["from_"][0], Path(_absolute(str(values["from_"][1]), folder))
    if values.get("boxes") is not None:
        values["boxes"] = Path(_absolute(str(values["boxes"]), folder))
    return dataclasses.replace(base, **values)


def _masks(texts: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Prompts ``[FRAME:]FILE`` with absolute paths."""
    parts = [_MASK.match(text).groups(default="") for text in texts]  # type: ignore[union-attr]  # it matches every text
    return tuple(f"{frame}{_absolute(file, folder)}" for frame, file in parts)


def _with_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a tracker or detector; those that name a file here (weights, boxes) get absolute paths."""
    return {key: _absolute(value, Path.cwd()) if _is_here(key, value) else value for key, value in options.items()}


def _is_here(key: str, value: object) -> bool:
    """Whether a setting names a file, or a model's folder; a known name of weights wins over a file of that name."""
    if not isinstance(value, str) or value in CATALOG or key == "text":
        return False
    return os.path.isfile(value) or (key == "model" and os.path.isdir(value))  # noqa: PTH112, PTH113  (any text)


def _absolute(text: str, folder: Path) -> str:
    """Workers may have another current folder."""
    if url_of(text) or "://" in text or text.startswith("camera:"):
        return url_of(text) or text
    place = url_of(folder)
    if place is not None and not os.path.isabs(text):  # noqa: PTH117
        return f"{place}/{text}"
    return os.path.abspath(os.path.join(folder, text))  # noqa: PTH100, PTH118  (links keep their names)
