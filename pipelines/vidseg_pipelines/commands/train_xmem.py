"""`vidseg train xmem`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from vidseg.errors import OutputError
from vidseg.names import printable
from vidseg.options import load_yaml
from vidseg_pipelines.commands.train import messages, only_training_in
from vidseg_trackers.xmem.training.config import TrainConfig
from vidseg_trackers.xmem.training.loop import CHECKPOINT, train


@dataclass(frozen=True)
class TrainXmemCommand:
    """Train XMem with small encoders on stills and clips; writes checkpoints and a weights file the tracker loads."""

    config: Path
    """Recipe (YAML), e.g. configs/training/xmem-compact.yaml."""
    output: Path = Path("runs/train-xmem")
    """Folder for checkpoint.pt, log.jsonl and compact-xmem.safetensors."""
    resume: bool = False
    """Go on from the checkpoint in the output folder, with the recipe and the data it was made with."""

    def run(self) -> int:
        """Train to the end of the recipe."""
        if not self.resume and (self.output / CHECKPOINT).exists():
            raise OutputError(f"{self.output}: holds a checkpoint already; add --resume or choose another --output")
        config = load_yaml(TrainConfig, self.config)
        console = Console(file=sys.stderr, soft_wrap=True, highlight=False)

        def log(record: dict[str, Any]) -> None:
            left = (record["of"] - record["iteration"]) * record["seconds_per_iteration"] / 60
            console.print(
                f"{record['iteration']}/{record['of']}  loss {record['loss']:.4f}  norm {record['norm']:.2f}  "
                f"{record['seconds_per_iteration']:.2f} s/it  {left:.0f} min left"
            )

        with only_training_in(self.output), messages():
            weights = train(config, self.output, resume=self.resume, log=log)
        console.print(printable(str(weights)), markup=False)
        return 0
