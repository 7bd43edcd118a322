"""What a user names - files, folders, globs, manifests - as one request per video."""

from __future__ import annotations

import csv
import dataclasses
import glob
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg.address import redact
from vidseg.config import RunConfig, from_mapping, key_values
from vidseg.errors import InputError, UsageError, did_you_mean
from vidseg.video.images import IMAGE_SUFFIXES, natural_key
from vidseg.weights import split_model
from vidseg.weights.catalog import CATALOG

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".mxf", ".flv", ".wmv"),
    *(".asf", ".ogv", ".ogg", ".3gp", ".3g2", ".gif", ".apng", ".y4m", ".nut", ".ivf", ".mjpeg", ".h264", ".hevc"),
)
"""Files of a folder that are taken for videos. A file that is named itself may have any suffix."""

MANIFEST_SUFFIXES = (".csv", ".jsonl")
COLUMNS = ("input", "output", "box", "point", "mask", "boxes", "frames", "max_objects")
_LISTS = ("box", "point", "mask")
_MASK = re.compile(r"^(\d+:)?(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """One video and its settings; ``name`` is the output's name that a manifest asks for."""

    config: RunConfig
    name: str | None = None


def expand(inputs: Sequence[str], base: RunConfig) -> list[Request]:
    """One request per video, in the order given; inside folders and globs in natural order.

    A folder stands for the videos in it and for the folders of images in it, or, when it has neither, for itself as a
    folder of images. ``.csv`` and ``.jsonl`` files are manifests. A file that does not exist is a request like others
    and fails alone.

    Raises:
        UsageError: nothing named, a glob or folder without videos, standard input, a malformed manifest (with line).
        InputError: a manifest cannot be read.
    """
    if not inputs:
        raise UsageError("which videos? vidseg batch INPUT... (files, folders, globs, or a .csv or .jsonl manifest)")
    requests: list[Request] = []
    for text in inputs:
        path = Path(text)
        if text == "-":
            raise UsageError("-: standard input is one video; use vidseg run -")
        if path.suffix.lower() in MANIFEST_SUFFIXES:
            requests += _manifest(path, base)
        else:
            requests += [Request(_with(base, {"input": name}, Path.cwd(), "batch")) for name in _videos(text)]
    return requests


def _videos(text: str) -> list[str]:
    path = Path(text)
    if path.is_dir():
        return _in_folder(path)
    if path.exists() or "://" in text or not glob.has_magic(text):
        return [text]
    found = sorted(glob.glob(text, recursive=True), key=natural_key)  # noqa: PTH207  (a pattern with folders)
    if not found:
        raise UsageError(f"{text}: no file has such a name")
    return [video for name in found for video in (_in_folder(Path(name)) if Path(name).is_dir() else [name])]


def _in_folder(folder: Path) -> list[str]:
    entries = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: natural_key(p.name))
    videos = [p for p in entries if (p.is_file() and p.suffix.lower() in VIDEO_SUFFIXES) or (p.is_dir() and _images(p))]
    if videos:
        return [str(p) for p in videos]
    if _images(folder):
        return [str(folder)]
    raise UsageError(f"{folder}: a folder without videos or images")


def _images(folder: Path) -> bool:
    return any(p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") for p in folder.iterdir())


def _manifest(path: Path, base: RunConfig) -> list[Request]:
    """Rows of a CSV (several prompts in a cell: ``;`` between) or of a JSONL (text or lists of texts)."""
    requests = []
    for line, row in _rows(path):
        where = f"{path}, line {line}"
        for column in row:
            if column not in COLUMNS:
                hint = did_you_mean(column, COLUMNS)
                raise UsageError(f"{where}: unknown column '{column}'{hint}: allowed are {', '.join(COLUMNS)}")
        name = row.pop("output", None)
        if not isinstance(row.get("input") or None, str) or not isinstance(name, str | None):
            raise UsageError(f"{where}: 'input' (a video) and 'output' (a name, or none) must be texts")
        requests.append(Request(_with(base, row, path.parent, where), name))
    if not requests:
        raise UsageError(f"{path}: a manifest without videos")
    return requests


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, the cells that are not empty)."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                reader = csv.DictReader(file, restkey="(a cell without a column)", strict=True)
                for cells in reader:
                    yield reader.line_num, {k.strip(): _cell(k.strip(), v) for k, v in cells.items() if v}
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise UsageError(f"{path}, line {number}: a json object per line wanted")
                    yield number, {k: v for k, v in row.items() if v is not None}
    except OSError as error:
        raise InputError(f"{path}: cannot read the manifest ({error.strerror})") from error
    except UsageError:
        raise
    except (csv.Error, ValueError, RecursionError) as error:  # also bytes that are no text, numbers without end
        raise UsageError(f"{path}: not a valid {path.suffix} manifest ({error})") from error


def _cell(column: str, text: str) -> Any:
    if column in _LISTS:
        return tuple(part.strip() for part in text.split(";") if part.strip())
    return int(text) if column == "max_objects" and text.strip().isdecimal() else text


def _with(base: RunConfig, row: Mapping[str, Any], folder: Path, where: str) -> RunConfig:
    """``base`` with the settings of one video; its files are looked for in ``folder`` and get absolute paths."""
    values = {field.name: getattr(base, field.name) for field in dataclasses.fields(RunConfig)}
    config = from_mapping(RunConfig, {**values, **row}, where=where)
    if redact(config.input) != config.input:
        raise UsageError(
            f"{where}: {redact(config.input)}: an address with a password or a query would be written into the folder "
            "of the batch; segment it with vidseg run"
        )
    masks = []
    for text in config.mask:
        frame, file = _MASK.match(text).groups(default="")  # type: ignore[union-attr]  # it matches every text
        masks.append(f"{frame}{_absolute(file, folder if 'mask' in row else Path.cwd())}")
    boxes = config.boxes
    if boxes is not None:
        boxes = Path(_absolute(str(boxes), folder if "boxes" in row else Path.cwd()))
    name, weights = split_model(config.model)
    if weights is not None:
        path = _absolute(str(weights), Path.cwd())
        config = dataclasses.replace(config, model=f"{name}={path}" if name else path)
    return dataclasses.replace(
        config,
        input=_absolute(config.input, folder),
        mask=tuple(masks),
        boxes=boxes,
        tracker_options=_with_files(config.tracker_options | key_values("--tracker-option", config.tracker_option)),
        tracker_option=(),
        detector_options=_with_files(config.detector_options),
    )


def _with_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a tracker or detector; those that name a file here (weights, boxes) get absolute paths."""
    return {key: _absolute(value, Path.cwd()) if _is_file(value) else value for key, value in options.items()}


def _is_file(value: object) -> bool:
    """Whether a setting names a file; a known name of weights wins over a file of that name."""
    return isinstance(value, str) and value not in CATALOG and os.path.isfile(value)  # noqa: PTH113  (any text)


def _absolute(text: str, folder: Path) -> str:
    """Workers may have another current folder."""
    return text if "://" in text or text.startswith("camera:") else os.path.abspath(folder / text)  # noqa: PTH100  (links keep their names)
