"""`vidseg train xmem`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vidseg_pipelines.commands.recipes import load_recipe
from vidseg_pipelines.commands.train import training_in


@dataclass(frozen=True)
class TrainXmemCommand:
    """Train XMem with small encoders on stills and clips; writes checkpoints and a weights file the tracker loads."""

    config: Path
    """Recipe (YAML), e.g. configs/training/xmem-compact.yaml."""
    output: Path = Path("runs/train-xmem")
    """Folder for last.pt, log.jsonl and compact-xmem.safetensors."""
    data: Path | None = None
    """Folder of the recipe's data, replacing the one that it names."""
    resume: bool = False
    """Continue from the checkpoint in the output folder, with the same recipe and data."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def run(self) -> int:
        """Train to the end of the recipe."""
        from vidseg.runtime import resolve_device
        from vidseg_trackers.xmem.training.config import TrainConfig
        from vidseg_trackers.xmem.training.loop import train

        config, device = load_recipe(TrainConfig, self.config, "xmem"), resolve_device(self.device)
        if self.data is not None:
            config = replace(config, data=str(self.data))
        with training_in(self.output, resume=self.resume):
            train(config, self.output, resume=self.resume, device=device)
        return 0
