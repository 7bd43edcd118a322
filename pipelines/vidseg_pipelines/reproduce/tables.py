"""The paper's tables as files: rows of benchmarks with the printed numbers, run and shown beside ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import vidseg
from vidseg.config import from_mapping, load_yaml
from vidseg.errors import AbsentWeightsError, InputError, OutputError, UsageError, VidsegError, did_you_mean
from vidseg.evaluation.tables import text_table, write_json
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.run import MISSING, ReproduceResult, Started, lookup, run_benchmark
from vidseg_pipelines.run import Loaders

_FOR_ALL = ("data", "device", "dtype", "offline", "workers", "overwrite")
_REPLACED = ("model", "tracker", "limit")


@dataclass(frozen=True)
class TableRow:
    """One row on one benchmark. ``run``: its settings, with a single name in ``masks``."""

    label: str
    run: dict[str, Any]
    paper: dict[str, Any]
    """Printed numbers (0..100) by path of the score; null where a figure prints none."""
    train: str = ""
    """The recipe that makes the weights, where they are no published ones."""
    needs: str = ""
    """What must be put where, beside the data set."""


@dataclass(frozen=True)
class Table:
    """A table of the paper. ``notes`` are shown under it; ``printed``: other columns, which are not measured here."""

    title: str
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()
    printed: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RowResult:
    """Our numbers (0..100) by path, or why there are none."""

    row: TableRow
    benchmark: str
    ours: Mapping[str, float | None]
    missing: str = ""


def table_folder() -> Path:
    """Where the tables are: inside the installed package, or beside it in a source tree."""
    packaged = Path(str(resources.files("vidseg"))) / "configs" / "evaluation"
    source = Path(vidseg.__file__).resolve().parents[1] / "configs" / "evaluation"
    return packaged if packaged.is_dir() else source


def read_table(name: str) -> Table:
    """A table by name (table-10) or YAML file.

    Raises:
        UsageError: unknown, or a file that does not fit.
    """
    names = sorted(path.stem for path in table_folder().glob("*.yaml"))
    if name in names:
        return load_yaml(Table, table_folder() / f"{name}.yaml")
    if not Path(name).suffix:
        raise UsageError(f"unknown table '{name}'{did_you_mean(name, names)}: a YAML file, or {', '.join(names)}")
    return load_yaml(Table, Path(name))


def run_table(
    table: Table, common: ReproduceConfig, *, loaders: Loaders | None = None, on_start: Started | None = None
) -> list[RowResult]:
    """Run every row that can be run. Rows that differ in their mask alone share one run.

    ``common``: data, output folder and device for all rows; its model, tracker and limit replace those of the rows.

    Raises:
        UsageError: a row that is malformed, or settings in ``common`` that are for the rows to say. InputError: no data
            folder. OutputError: a result cannot be written.
    """
    folder = common.output or Path("runs") / "tables"
    _check_common(table, common)
    _ = common.root  # one line if it is missing, not one for every row
    configs = [_row_config(row, common) for row in table.rows]
    wanted: dict[str, list[str]] = {}
    for config in configs:
        wanted.setdefault(_key(config), []).append(config.masks)
    done: dict[str, ReproduceResult | str] = {}
    results = []
    for row, config in zip(table.rows, configs, strict=True):
        key = _key(config)
        if key not in done:
            both = replace(config, masks=",".join(dict.fromkeys(wanted[key])), output=folder / key)
            try:
                done[key] = run_benchmark(both, loaders=loaders, on_start=on_start)
            except OutputError:
                raise
            except AbsentWeightsError as error:
                done[key] = error.brief
            except VidsegError as error:
                done[key] = str(error)
        results.append(_row_result(row, config, done[key]))
    return results


def show_table(table: Table, results: Sequence[RowResult], common: ReproduceConfig) -> str:
    """The paper's numbers beside ours, a block per benchmark, what was replaced in the rows, and what is missing."""
    blocks = [table.title]
    for benchmark in dict.fromkeys(result.benchmark for result in results):
        rows = [result for result in results if result.benchmark == benchmark]
        metrics = list(dict.fromkeys(metric for result in rows for metric in result.row.paper))
        printed = {metric for r in rows for metric, value in r.row.paper.items() if value is not None}
        header, cells = [benchmark], [[r.row.label] for r in rows]
        for metric in metrics:
            header += [metric, "paper"] if metric in printed else [metric]
            for r, line in zip(rows, cells, strict=True):
                line += [_cell(n.get(metric)) for n in (r.ours, r.row.paper)[: 1 + (metric in printed)]]
        blocks.append(text_table(header, cells))
    blocks += [f"{label}: {told}" for label, told in table.printed.items()]
    blocks += list(table.notes)
    given = {name: value for name in _REPLACED if (value := getattr(common, name))}
    blocks += [f"not the paper's protocol: every row ran with --{name} {value}" for name, value in given.items()]
    lacking: dict[str, list[str]] = {}
    for result in results:
        if result.missing:
            lacking.setdefault(result.missing, []).append(f"{result.row.label} ({result.benchmark})")
    blocks += [f"not run: {', '.join(rows)}: {missing}" for missing, rows in lacking.items()]
    return "\n\n".join(blocks)


def write_table(path: Path, table: Table, results: Sequence[RowResult]) -> dict[str, Any]:
    """Write everything as json, and give it back.

    Raises:
        OutputError: the file cannot be written.
    """
    rows = [
        {
            "label": r.row.label,
            "benchmark": r.benchmark,
            "ours": r.ours,
            "paper": r.row.paper,
            "missing": r.missing or None,
        }
        for r in results
    ]
    content = {"title": table.title, "unit": "0..100", "rows": rows, "notes": list(table.notes)}
    write_json(path, content)
    return content


def check_some(results: Sequence[RowResult]) -> int:
    """Exit code: 0 when all rows were run, 5 when some.

    Raises:
        InputError: none was.
    """
    missing = [result for result in results if result.missing]
    if len(missing) == len(results):
        raise InputError(f"no row could be run; the first: {missing[0].missing}")
    return 5 if missing else 0


def _check_common(table: Table, common: ReproduceConfig) -> None:
    """Refuse what would be passed over in silence (UsageError)."""
    allowed = {*_FOR_ALL, *_REPLACED, "output", *(["tracker_option"] if common.tracker else [])}
    default = ReproduceConfig()
    for name in (f.name for f in fields(ReproduceConfig) if f.name not in allowed):
        if getattr(common, name) != getattr(default, name):
            raise UsageError(f"--{name.replace('_', '-')} is for one benchmark; with --table the rows say it")
    if common.tracker and not any("tracker" in row.run for row in table.rows):
        raise UsageError(f"--tracker {common.tracker}: no row of this table has a tracker")


def _row_config(row: TableRow, common: ReproduceConfig) -> ReproduceConfig:
    config = from_mapping(ReproduceConfig, row.run, where=f"row '{row.label}'")
    if len(config.scored_masks) != 1:
        raise UsageError(f"row '{row.label}': masks: expected one of sam, hq and sum, got '{config.masks}'")
    given = {name: getattr(common, name) for name in _FOR_ALL}
    given |= {name: value for name in ("model", "limit") if (value := getattr(common, name))}
    if common.tracker and config.tracker:
        given |= {"tracker": common.tracker, "tracker_option": common.tracker_option, "tracker_options": {}}
    if config.boxes is not None:
        given["boxes"] = common.root / config.boxes
    if config.masks_from is not None:
        given |= {"masks_from": common.root / config.masks_from, "model": ""}
    return replace(config, **given)


def _key(config: ReproduceConfig) -> str:
    """A folder name for the rows that one run serves."""
    content = {**config.content(), "boxes": str(config.boxes), "sets": config.sets}
    content |= {k: str(v) for k in ("masks_from", "cascadepsp") if (v := getattr(config, k))}
    del content["masks"]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{config.benchmark}-{digest[:10]}"


def _row_result(row: TableRow, config: ReproduceConfig, result: ReproduceResult | str) -> RowResult:
    if isinstance(result, str):
        how = [result]
        how += [row.needs] if row.needs else []
        how += [f"its weights are made by `vidseg train hq --config {row.train}`"] if row.train else []
        return RowResult(row, config.benchmark, {}, "; ".join(how))
    if not result.scores:
        return RowResult(row, config.benchmark, {}, "; ".join(result.lacking))
    scores = result.scores[config.scored_masks[0]]
    numbers = {metric: lookup(scores, metric) for metric in row.paper}
    unknown = [metric for metric, value in numbers.items() if value is MISSING]
    if unknown and not result.lacking:
        raise UsageError(f"row '{row.label}': {config.benchmark} has no number '{unknown[0]}'")
    ours = {m: None if v in (None, MISSING, -1) else 100 * v for m, v in numbers.items()}  # -1: no object in the range
    return RowResult(row, config.benchmark, ours, "; ".join(result.lacking))


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
