"""One benchmark, from its configuration to the score: does what is missing, then scores everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg import __version__
from vidseg.errors import InputError
from vidseg.evaluation.tables import write_json
from vidseg.registry import check_name, weights_used
from vidseg.weights import weights_identity
from vidseg_pipelines.reproduce.benchmarks import resolve
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.store import SCORE, ReproduceRecords, folder_lock
from vidseg_pipelines.reproduce.task import Scores, Task, TaskModels
from vidseg_pipelines.run import Loaders
from vidseg_pipelines.run_inputs import fingerprint

Advance = Callable[[], None]
Started = Callable[[str, int, str], Advance]
"""Told of the benchmark, the number of images or videos to do, and what they are; gives what is called after each."""

_MASKS = {
    "sam": "the mask of SAM's token (of an HQ-SAM: its HQ token takes part in the attention)",
    "hq": "the mask of the HQ token alone",
    "sum": "the logits of SAM's mask and of the HQ mask added",
    "tracker": "the tracker's own masks",
    "given": "masks that were given",
}


@dataclass(frozen=True)
class ReproduceResult:
    """What a benchmark gave. ``scores``: by name of the mask; ``columns``: the numbers to print, by path in them."""

    config: ReproduceConfig
    folder: Path
    scores: Mapping[str, Scores]
    protocol: Mapping[str, object]
    columns: tuple[str, ...]
    lacking: tuple[str, ...]
    computed: int

    def content(self) -> dict[str, Any]:
        """All of it, json-ready."""
        return {
            "benchmark": self.config.benchmark,
            "status": "partial" if self.lacking else "done",
            "scores": self.scores,
            "protocol": self.protocol,
            "lacking": list(self.lacking),
        }


def run_benchmark(
    config: ReproduceConfig, *, loaders: Loaders | None = None, on_start: Started | None = None
) -> ReproduceResult:
    """Run what is missing in the output folder, score all of it, and write ``score.json``.

    ``loaders`` give the models, which are asked for only when there is something to do.

    Raises:
        UsageError: wrong settings; the folder holds a run with others, or another call works there.
        InputError: data that is missing or does not fit. WeightsError: weights that are missing or wrong.
        OutputError: a result cannot be written. What was computed before stays.
    """
    benchmark, config = resolve(config)
    if config.tracker:
        check_name("tracker", config.tracker)
    task = benchmark.open(config)
    if not task.keys:
        raise InputError(f"{config.root}: nothing to do for {config.benchmark}")
    folder = config.output or Path("runs") / f"reproduce-{config.benchmark}"
    with folder_lock(folder, overwrite=config.overwrite):
        store = ReproduceRecords(folder, _manifest(config, task), overwrite=config.overwrite)
        task.check(folder)
        missing = [key for key in task.keys if key not in store.done]
        models = TaskModels(config, loaders or Loaders(), task)
        if missing and config.masks_from is None:
            models.load()
            store.describe(_manifest(config, task))  # again: weights that were fetched have a checksum now
        advance = on_start(config.benchmark, len(missing), task.unit) if on_start and missing else lambda: None
        for key in missing:
            store.append(key, task.predict(key, models, folder))
            advance()
        outcome = task.score(store)
        _, record = next(store.read(task.keys[:1]))
        protocol = {
            "benchmark": config.benchmark,
            "model": "none" if config.masks_from else config.model or "compact",
            **({"post-refinement": f"CascadePSP: {config.cascadepsp}"} if config.cascadepsp else {}),
            **outcome.protocol,
            "masks": {name: _MASKS[name] for name in record["masks"]},
            "fit": record.get("fit", "aspect kept, padded"),
            "part": f"only the first {config.limit} {task.unit} of every set" if config.limit else "all",
        }
        scored = tuple(
            c for c in benchmark.columns if all(lookup(s, c) is not MISSING for s in outcome.scores.values())
        )
        result = ReproduceResult(config, folder, outcome.scores, protocol, scored, outcome.lacking, len(missing))
        write_json(folder / SCORE, result.content())
        return result


MISSING = object()


def lookup(scores: Scores, path: str) -> Any:
    """The number called ``path``: a key, or SET.KEY; ``MISSING`` where there is none."""
    if path in scores:
        return scores[path]
    head, _, rest = path.partition(".")
    inner = scores.get(head)
    return inner.get(rest, MISSING) if isinstance(inner, Mapping) else MISSING


def _manifest(config: ReproduceConfig, task: Task) -> dict[str, Any]:
    weights = {} if config.masks_from else {"model": weights_identity(config.model or "compact")}
    if config.cascadepsp is not None:
        weights["cascadepsp"] = weights_identity(str(config.cascadepsp))
    if config.prompt == "tracker":
        used = weights_used("tracker", config.tracker, config.all_tracker_options(), config.model or "compact")
        weights |= {"tracker": weights_identity(used)} if used else {}
    files: dict[str, Any] = {str(path): fingerprint(path) for path in task.sources}
    return {
        "version": __version__,
        "config": config.content(),
        "input": {"data": str(config.root.resolve()), "coarse": str(config.coarse), **files},
        "weights": weights,
    }
