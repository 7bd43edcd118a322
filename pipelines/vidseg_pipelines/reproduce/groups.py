"""Data sets with an annotation file: reading it, cutting it to the part that is done, checking results and boxes."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidseg.errors import InputError
from vidseg.evaluation.checks import Row, check_known, check_tables, is_int, read_results
from vidseg.evaluation.tables import write_json
from vidseg.text import read_json

Evaluate = Callable[[Path, Path], object]


@dataclass(frozen=True)
class AnnotationSet:
    """One annotation file. ``rows``: its images or videos by id, those that are done; ``name`` is "" for a lone file.

    ``by_row``: annotations of every row, crowds left out. ``scored``: whether the ground truth is public. ``changed``:
    whether ``data`` and ``rows`` are not all that the file has, as it has it.
    """

    name: str
    file: Path
    folder: Path
    rows: Mapping[int, Row]
    all_ids: frozenset[int]
    categories: Mapping[int, str]
    by_row: Mapping[int, Sequence[Row]]
    scored: bool
    changed: bool
    data: Mapping[str, Any] = field(repr=False)

    def truth(self, table: str, key: str, target: Path) -> Path:
        """The file to evaluate against: the official one, or ``target`` with the part of it that is done."""
        if not self.changed:
            return self.file
        part = {**self.data, table: list(self.rows.values())}
        part["annotations"] = [row for row in self.data["annotations"] if row[key] in self.rows]
        write_json(target, part)
        return target


def read_annotation_set(name: str, file: Path, folder: Path, table: str, key: str, limit: int) -> AnnotationSet:
    """Read an annotation file: ``table`` names its images or videos, ``key`` their id in annotations.

    Raises:
        InputError: unreadable, or ids that are missing, twice or unknown.
    """
    data = read_json(file)
    scored = isinstance(data, dict) and data.get("annotations") is not None
    if not scored and isinstance(data, dict):
        data = {**data, "annotations": []}  # a split whose ground truth stays on a server
    shifted = _from_one(data) if scored else data
    tables = check_tables(shifted, (table, "annotations", "categories"), file)
    rows = sorted(tables[table], key=lambda row: row["id"])
    if not rows:
        raise InputError(f"{file}: '{table}' is empty")
    all_ids, done = frozenset(row["id"] for row in rows), rows[: limit or None]
    kept = {row["id"]: row for row in done}
    by_row: dict[int, list[Row]] = defaultdict(list)
    for row in tables["annotations"]:
        check_known(row, key, all_ids, f"{file}: annotation {row['id']}")
        if not row.get("iscrowd", 0):
            by_row[row[key]].append(row)
    names = {row["id"]: str(row.get("name", row["id"])) for row in tables["categories"]}
    changed = len(done) < len(rows) or shifted is not data
    return AnnotationSet(name, file, folder, kept, all_ids, names, by_row, scored, changed, shifted)


def _from_one(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` with annotation ids that begin at 1, where they begin at 0 as some tools number them.

    A match with the id 0 counts as none in COCO's evaluator, so ours refuses such files.
    """
    rows = data["annotations"]
    ids = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    if 0 not in ids or len(ids) < len(rows) or not all(is_int(i) and i >= 0 for i in ids):
        return data
    return {**data, "annotations": [{**row, "id": row["id"] + 1} for row in rows]}


def read_detections(path: Path, group: AnnotationSet, key: str, *, any_category: bool) -> dict[int, list[Row]]:
    """The results of a detector by image or video, best first; ``any_category``: its classes are not those of the data.

    Raises:
        InputError: unknown images, videos or categories, or scores that are no finite numbers.
    """
    only = next(iter(group.categories))
    rows = read_results(path, key, group.all_ids, None if any_category else group.categories)
    of: dict[int, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: -row["score"]):
        of[row[key]].append({**row, "category_id": only} if any_category else row)
    return of


def first_of_each(rows: Iterable[Row], limit: int, *, per_category: bool) -> list[Row]:
    """The best ``limit`` results of an image, or of each of its classes: evaluators do not look at more."""
    counts: dict[int, int] = defaultdict(int)
    kept = []
    for row in rows:
        group = row["category_id"] if per_category else 0
        counts[group] += 1
        if counts[group] <= limit:
            kept.append(row)
    return kept


def check_truth(truth: Path, evaluate: Evaluate) -> None:
    """Let the evaluator check the ground truth before the first image is encoded.

    Raises:
        InputError: whatever the evaluator finds.
    """
    with tempfile.TemporaryDirectory() as folder:
        nothing = Path(folder) / "results.json"
        nothing.write_text("[]")
        evaluate(truth, nothing)


def check_files(files: Iterable[Path], group: AnnotationSet) -> list[Path]:
    """The files of a group's images, all of which must be there.

    Raises:
        InputError: some are missing.
    """
    files = list(files)
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise InputError(
            f"{missing[0]}: not found; {len(missing)} of {len(files)} images of {group.file.name} are missing"
        )
    return files
