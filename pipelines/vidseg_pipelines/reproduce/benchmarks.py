"""The benchmarks by name: where their data is, which prompts they know, how they are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from vidseg.datasets import layouts
from vidseg.errors import InputError, UsageError, did_you_mean
from vidseg.evaluation.checks import Row
from vidseg.evaluation.image_ap import ImageApReport, evaluate_coco, evaluate_lvis
from vidseg.evaluation.tube_ap import evaluate_tubes
from vidseg_pipelines.reproduce.config import PromptKind, ReproduceConfig
from vidseg_pipelines.reproduce.davis import open_davis
from vidseg_pipelines.reproduce.detections import Detections, Evaluated, Kind
from vidseg_pipelines.reproduce.groups import read_annotation_set
from vidseg_pipelines.reproduce.mask_sets import open_big, open_hq44k_val
from vidseg_pipelines.reproduce.task import Scores, Task
from vidseg_pipelines.reproduce.video_sets import VIDEO_SETS, open_video_set

LOOSE, STRICT = 0.02, 0.01
_FROM_TRUTH: tuple[PromptKind, ...] = ("gt-boxes", "noisy-boxes", "points", "coarse-masks")


@dataclass(frozen=True)
class Benchmark:
    """``prompts``: what it can be prompted with; ``columns``: the numbers that are printed, by path in the scores."""

    open: Callable[[ReproduceConfig], Task]
    prompts: tuple[PromptKind, ...]
    columns: tuple[str, ...]
    default: PromptKind | None = None


def _image_scores(evaluate: Callable[[float], ImageApReport], ratios: Mapping[str, float]) -> Evaluated:
    """Mask AP, and boundary AP by name of its ratio."""
    tables: Scores = {}
    protocol: dict[str, object] = {}
    for name, ratio in ratios.items():
        report = evaluate(ratio)
        tables["mask"] = report.stats(report.mask)
        if report.boundary is not None:
            tables[name] = report.stats(report.boundary)
        protocol |= {**report.protocol, "ratio": dict(ratios)}
    return tables, protocol


def _coco(truth: Path, results: Path, workers: int) -> Evaluated:
    return _image_scores(lambda r: evaluate_coco(truth, results, ratio=r, workers=workers), {"boundary": LOOSE})


def _uvo(truth: Path, results: Path, workers: int) -> Evaluated:
    ratios = {"boundary": LOOSE, "strict": STRICT}
    return _image_scores(lambda r: evaluate_coco(truth, results, ratio=r, class_agnostic=True, workers=workers), ratios)


def _lvis(truth: Path, results: Path, workers: int) -> Evaluated:
    ratios = {"boundary": LOOSE, "strict": STRICT}
    return _image_scores(lambda r: evaluate_lvis(truth, results, ratio=r, workers=workers), ratios)


def _sginw(truth: Path, results: Path, workers: int) -> Evaluated:
    report = evaluate_coco(truth, results, workers=workers)
    return {"mask": report.stats(report.mask)}, report.protocol


def _ytvis(truth: Path, results: Path, workers: int) -> Evaluated:
    report = evaluate_tubes(truth, results, workers=workers)
    return {"mask": report.mask.curves.stats()}, report.protocol


def _hq_ytvis(truth: Path, results: Path, workers: int) -> Evaluated:
    report = evaluate_tubes(truth, results, ratio=LOOSE, workers=workers)
    tables: Scores = {"mask": report.mask.curves.stats()}
    if report.boundary is not None:
        tables["boundary"] = report.boundary.curves.stats()
    return tables, report.protocol


def _file_name(row: Row) -> list[str]:
    return [str(row.get("file_name"))]


def _coco_url(row: Row) -> list[str]:
    """LVIS names its images by their COCO address: val2017/NUMBER.jpg or train2017/NUMBER.jpg."""
    if "file_name" in row:
        return _file_name(row)
    return ["/".join(PurePosixPath(urlparse(str(row.get("coco_url"))).path).parts[-2:])]


def _file_names(row: Row) -> list[str]:
    return [str(name) for name in row.get("file_names") or ()]


_KINDS = {
    "coco": Kind("coco", False, _file_name, _coco),
    "lvis": Kind("lvis", False, _coco_url, _lvis, limit=300, per_category=False),
    "uvo": Kind("uvo", False, _file_name, _uvo, per_category=False, any_category=True),
    "sginw": Kind("sginw", False, _file_name, _sginw),
    "ytvis2019": Kind("ytvis2019", True, _file_names, _ytvis),
    "hq-ytvis": Kind("hq-ytvis", True, _file_names, _hq_ytvis),
}


def _open_json(name: str) -> Callable[[ReproduceConfig], Task]:
    """Opens the benchmark ``name`` in its official layout, or where ``config`` says."""
    kind, layout = _KINDS[name], layouts.JSON_LAYOUTS[name]

    def open_it(config: ReproduceConfig) -> Task:
        wanted = [] if config.annotations else [layout.annotations]
        wanted += [] if config.images else [layout.images]
        found = layouts.need(config.root, name, wanted, " (or give --annotations FILE and --images DIR)")
        file = config.annotations or found.pop(0)
        group = read_annotation_set("", file, config.images or found.pop(), kind.table, kind.key, config.limit)
        if not group.scored and config.prompt in _FROM_TRUTH:
            raise InputError(
                f"{file}: the boxes of its ground truth are not public: use --boxes FILE or --tracker NAME"
            )
        told = config.masks_from or config.boxes
        return Detections(config, kind, [group], {"": told} if told else {})

    return open_it


def _open_sginw(config: ReproduceConfig) -> Task:
    kind, chosen = _KINDS["sginw"], config.chosen_sets or layouts.SGINW_SETS
    for name in chosen:
        if name not in layouts.SGINW_SETS:
            close = did_you_mean(name, layouts.SGINW_SETS)
            raise UsageError(f"--sets {name}{close}: allowed are {', '.join(layouts.SGINW_SETS)}")
    wanted = [f"{layouts.SGINW}/{name}/{layouts.SGINW_FILE}" for name in chosen]
    files = layouts.need(config.root, "sginw", wanted, "; --sets leaves sets out")
    groups = [
        read_annotation_set(name, file, file.parent, kind.table, kind.key, config.limit)
        for name, file in zip(chosen, files, strict=True)
    ]
    boxes = {name: config.boxes / f"{name}.json" for name in chosen} if config.boxes else {}
    return Detections(config, kind, groups, boxes)


_AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_MASK_SETS = (*layouts.MASK_FOLDERS, "average")
_BOUNDARIES = ("mask.AP", "boundary.AP", "boundary.AP50", "boundary.AP75", "strict.AP", "strict.AP50", "strict.AP75")
_DETECTED: tuple[PromptKind, ...] = ("boxes-file", *_FROM_TRUTH)
_TRACKED: tuple[PromptKind, ...] = ("boxes-file", "tracker", *_FROM_TRUTH)

BENCHMARKS: dict[str, Benchmark] = {
    "davis2017": Benchmark(open_davis, ("tracker",), ("J&F-Mean", "J-Mean", "F-Mean"), "tracker"),
    **{
        name: Benchmark(open_video_set(name), ("tracker",), ("J&F", "J", "F", "J_last"), "tracker")
        for name in VIDEO_SETS
    },
    "ytvis2019": Benchmark(_open_json("ytvis2019"), _TRACKED, tuple(f"mask.{name}" for name in _AP)),
    "hq-ytvis": Benchmark(
        _open_json("hq-ytvis"), _TRACKED, tuple(f"{kind}.{ap}" for kind in ("boundary", "mask") for ap in _AP[:3])
    ),
    "coco": Benchmark(_open_json("coco"), _DETECTED, ("boundary.AP", *(f"mask.{name}" for name in _AP))),
    "hq44k-val": Benchmark(
        open_hq44k_val, _FROM_TRUTH, tuple(f"{s}.{m}" for s in _MASK_SETS for m in ("mIoU", "mBIoU")), "gt-boxes"
    ),
    "big": Benchmark(open_big, _FROM_TRUTH, ("big.mIoU", "big.mBIoU"), "gt-boxes"),
    "uvo": Benchmark(_open_json("uvo"), _DETECTED, _BOUNDARIES),
    "lvis": Benchmark(_open_json("lvis"), _DETECTED, _BOUNDARIES),
    "sginw": Benchmark(_open_sginw, _DETECTED, ("mean.AP",)),
}


def resolve(config: ReproduceConfig) -> tuple[Benchmark, ReproduceConfig]:
    """The benchmark and the configuration with its prompt decided.

    Raises:
        UsageError: unknown benchmark, or a prompt that it does not know or that nothing was given for.
    """
    if config.benchmark not in BENCHMARKS:
        close = did_you_mean(config.benchmark, BENCHMARKS)
        raise UsageError(f"unknown benchmark '{config.benchmark}'{close}: one of {', '.join(BENCHMARKS)}")
    config.check()
    benchmark, prompt = BENCHMARKS[config.benchmark], config.prompt
    only_tracks = benchmark.prompts == ("tracker",)
    if (config.masks_from or config.cascadepsp) and (only_tracks or config.benchmark == "sginw"):
        raise UsageError(f"{config.benchmark} takes no --masks-from or --cascadepsp: use `vidseg eval`")
    if config.masks_from is not None:
        return benchmark, replace(config, prompt="masks-from")
    if prompt == "auto":
        given: PromptKind | None = "boxes-file" if config.boxes else "tracker" if config.tracker else benchmark.default
        if given is None:
            tracker = " or --tracker mask2former" if "tracker" in benchmark.prompts else ""
            raise UsageError(
                f"{config.benchmark}: expected boxes of a detector: --boxes FILE{tracker}; or, as an upper bound, "
                "--prompt gt-boxes"
            )
        prompt = given
    if prompt not in benchmark.prompts:
        raise UsageError(
            f"{config.benchmark} cannot be prompted with {prompt}: allowed are {', '.join(benchmark.prompts)}"
        )
    tracker = config.tracker or ("xmem" if benchmark.default == "tracker" else "")
    if prompt == "tracker" and not tracker:
        raise UsageError("--prompt tracker needs --tracker NAME")
    return benchmark, replace(config, prompt=prompt, tracker=tracker)
