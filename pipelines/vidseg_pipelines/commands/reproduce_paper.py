"""The tables and figures of the HQ-SAM paper that are no rows of benchmarks, for `vidseg reproduce`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.errors import InputError, UsageError
from vidseg.evaluation.tables import text_pairs, text_table, write_json
from vidseg.names import printable
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg_pipelines.reproduce import model_cost, side_by_side
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.paper import Way
from vidseg_pipelines.reproduce.training_sets import count_sets, draw_sets
from vidseg_pipelines.run import Loaders


@dataclass(frozen=True)
class PaperPart:
    """One table or figure, called ``name``; pictures go to ``plot``, by default into the output folder."""

    name: str
    config: ReproduceConfig
    loaders: Loaders
    plot: Path | None = None
    json: bool = False

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self.config.output or Path("runs") / self.name

    def run(self, way: Way) -> int:
        """Make it; returns the exit code.

        Raises:
            UsageError: settings that it lacks, or a figure that cannot be made. InputError: data that is missing.
        """
        if way == "drawing":
            raise UsageError(
                f"{self.name} is the authors' drawing of the network; there is nothing to measure. What it shows is in "
                "vidseg/sam, a file per box"
            )
        if way in ("sheet", "attention"):
            return self._sheet(way)
        if way == "sets":
            return self._sets()
        return self._costs() if self.name == "table-1" else self._qualities()

    def _sheet(self, way: Way) -> int:
        images, boxes = side_by_side.need_images(self.name, self.config.images, self.config.boxes)
        pictures = side_by_side.boxes_of_images(images, boxes, self.config.limit)
        sam = self.loaders.sam(self.config.run_config())
        draw = side_by_side.draw_attention if way == "attention" else side_by_side.draw_side_by_side
        return self._save(draw(sam, pictures))

    def _sets(self) -> int:
        if self.name == "figure-8":
            return self._save(draw_sets(self.config.root, self.config.limit or 6, self.config.seed))
        rows = count_sets(self.config.root)
        content = {"rows": [{"set": r.name, "paper": r.paper, "ours": r.ours, "missing": r.missing} for r in rows]}
        text = text_table(["set", "paper", "ours"], [[r.name, r.paper, r.ours] for r in rows])
        missing = [f"not counted: {r.name}: {r.missing}" for r in rows[:-1] if r.missing]
        self._tell(content, "\n\n".join(["HQ-SAM, table 14: images with masks of HQSeg-44K", text, *missing]))
        if len(missing) == len(rows) - 1:
            raise InputError(f"{self.config.root}: no set of HQSeg-44K is there")
        if self.plot is not None:
            self._save(draw_sets(self.config.root, self.config.limit or 6, self.config.seed))
        return 5 if missing else 0

    def _costs(self) -> int:
        model, frames = self.config.model or "sam-hq-vit-l", self.config.limit or 3
        device = resolve_device(self.config.device)
        dtype = resolve_dtype(self.config.dtype, device)
        machine = model_cost.describe_machine(device, dtype)
        pair = model_cost.sam_and_hq(model)
        costs = {name: model_cost.measure_cost(config, device, dtype, frames) for name, config in pair.items()}
        content = model_cost.content_of(costs, machine, model, frames)
        header = ["", "learnable MiB", "paper", "total MiB", "frames/s", "paper", "peak MiB", "paper GB"]
        rows = [
            [
                name,
                f"{c.learnable_mib:.2f}",
                learnable,
                f"{c.total_mib:.2f}",
                f"{c.fps:.3f}",
                fps,
                f"{c.peak_mib:.0f}",
                gb,
            ]
            for (name, c), (learnable, fps, gb) in zip(costs.items(), model_cost.PRINTED.values(), strict=True)
        ]
        about = {"model": model, **machine, "frames": f"{frames}, the median", "paper": "ViT-L, one RTX 3090"}
        shown = [text_table(header, rows), text_pairs("measured on", about)]
        self._tell(content, "\n\n".join(["HQ-SAM, table 1", *shown]))
        return 0

    def _qualities(self) -> int:
        scores = self.config.output or Path("runs")
        found = model_cost.read_qualities(scores) if scores.is_dir() else {}
        if not found:
            raise InputError(
                f"{scores}: no score.json of hq44k-val or coco in it: run `vidseg reproduce table-10 --data ROOT`"
                " first, or name the folder of its results with --output"
            )
        metric = "AP (COCO)" if any(m == "AP (COCO)" for m, _ in found.values()) else "mIoU (four sets)"
        device = resolve_device(self.config.device)
        dtype = resolve_dtype(self.config.dtype, device)
        points = {}
        for label, (of, quality) in found.items():
            if of != metric:
                continue
            model, _, masks = label.rpartition(", ")
            config = model_cost.config_of(model)
            if masks == "sam" and config.hq:
                config = model_cost.sam_and_hq(model)["SAM"]
            cost = model_cost.measure_cost(config, device, dtype, self.config.limit or 3)
            points[label] = (cost.fps, quality, cost.total_mib)
        machine = model_cost.describe_machine(device, dtype)
        rows = {name: {"fps": p[0], "quality": p[1], "mib": p[2]} for name, p in points.items()}
        shown = [[name, f"{p[0]:.3f}", f"{p[1]:.1f}", f"{p[2]:.1f}"] for name, p in points.items()]
        text = text_table(["model", "frames/s", metric, "MiB"], shown)
        picture = model_cost.draw_qualities(points, metric)
        self._tell(
            {"metric": metric, "machine": machine, "rows": rows}, f"{text}\n\n{text_pairs('measured on', machine)}"
        )
        return self._save(picture, Path("runs") / f"{self.name}.png")

    def _tell(self, content: Mapping[str, object], text: str) -> None:
        if self.name == "table-1":
            write_json(self.folder / "table.json", content)
        sys.stdout.write((json.dumps(content, indent=1) if self.json else text) + "\n")

    def _save(self, picture: Image.Image, default: Path | None = None) -> int:
        path = self.plot or default or self.folder / f"{self.name}.png"
        make_folder(path.parent)
        with atomic_file(path) as file:
            picture.save(file, "PNG")
        sys.stderr.write(printable(f"{path}") + "\n")
        return 0
