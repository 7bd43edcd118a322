"""The tables and figures of the HQ-SAM paper by name, and what `vidseg reproduce` does for each."""

from __future__ import annotations

from typing import Literal

from vidseg.errors import UsageError, did_you_mean

Way = Literal["rows", "cost", "sets", "sheet", "attention", "drawing"]
"""How it is made: `rows` from a YAML file of benchmarks; `cost` by timing networks; `sets` by counting training data;
`sheet` and `attention` from --images and --boxes; `drawing` is the authors' drawing."""

PAPER: dict[str, tuple[Way, str]] = {
    "table-1": ("cost", "learnable parameters, speed and memory of SAM and HQ-SAM"),
    "table-2": ("rows", "the HQ output token"),
    "table-3": ("rows", "sources of the HQ feature"),
    "table-4": ("rows", "finetuning SAM and post-refinement"),
    "table-5": ("rows", "UVO"),
    "table-6": ("rows", "BIG, boxes and coarse masks"),
    "table-7": ("rows", "COCO and LVIS"),
    "table-8": ("rows", "HQ-YTVIS"),
    "table-9": ("rows", "LoRA and adapters"),
    "table-10": ("rows", "backbones"),
    "table-11": ("rows", "YouTube-VIS 2019 and HQ-YTVIS"),
    "table-12": ("rows", "DAVIS 2017"),
    "table-13": ("rows", "noisy boxes"),
    "table-14": ("sets", "what HQSeg-44K holds"),
    "table-15": ("rows", "SA-1B or HQSeg-44K as training data"),
    "table-16": ("rows", "training sets left out"),
    "figure-1": ("sheet", "masks of SAM and HQ-SAM side by side"),
    "figure-2": ("cost", "quality against speed and size"),
    "figure-3": ("drawing", "the architecture"),
    "figure-4": ("rows", "share of images above a boundary IoU"),
    "figure-5": ("rows", "clicks"),
    "figure-6": ("attention", "what output token and HQ token attend to"),
    "figure-7": ("sheet", "zero-shot masks side by side"),
    "figure-8": ("sets", "masks of the training sets"),
    "figure-9": ("sheet", "DIS side by side"),
    "figure-10": ("sheet", "COCO side by side"),
    "figure-11": ("sheet", "true and noisy boxes side by side"),
    "figure-12": ("sheet", "images of many kinds side by side"),
    "figure-13": ("sheet", "frames of DAVIS side by side"),
    "figure-14": ("sheet", "frames of YouTube-VIS side by side"),
}


def way_of(name: str) -> Way | None:
    """How a table or figure is made; None for other names (of benchmarks, of YAML files).

    Raises:
        UsageError: no such table or figure.
    """
    if name in PAPER:
        return PAPER[name][0]
    if name.startswith(("table-", "figure-")) and "." not in name:
        close = did_you_mean(name, PAPER)
        raise UsageError(f"the paper has no {name}{close}: table-1 to table-16, figure-1 to figure-14")
    return None
