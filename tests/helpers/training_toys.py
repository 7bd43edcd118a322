"""Small networks and data folders to train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from vidseg.sam.build import build_sam, save_sam
from vidseg.sam.config import SamConfig, VitConfig
from vidseg.training.loop import Loop
from vidseg.training.recipe import FolderData, Recipe
from vidseg.training.schedule import BatchRandomness, LoopConfig

CPU = torch.device("cpu")


TOY = SamConfig(
    encoder="vit",
    vit=VitConfig(embed_dim=24, depth=2, num_heads=2, global_blocks=(1,), window=2),
    image_size=64,
    prompt_dim=32,
    early_channels=24,
    decoder_mlp_dim=32,
    decoder_heads=2,
    iou_hidden_dim=16,
)


class Line(nn.Module):
    """y = w x, learned from noisy batches."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(3, 1)
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)

    def loss(self, draw: BatchRandomness) -> dict[str, torch.Tensor]:
        x = torch.randn(8, 3, generator=draw.torch)
        wanted = x @ torch.tensor([1.0, -2.0, 0.5])
        return {"loss": ((self.w(x)[:, 0] - wanted) ** 2).mean()}


def run_line(folder: Path, config: LoopConfig, resume: bool = False) -> tuple[Line, Loop]:
    torch.manual_seed(0)
    model = Line()
    loop = Loop(model, model.loss, config, folder)
    if resume:
        loop.resume()
    loop.run()
    return model, loop


def write_folder(root: Path, count: int = 6) -> None:
    for name in ("im", "gt"):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        image = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
        mask = np.zeros((48, 64), np.uint8)
        x, y = int(rng.integers(2, 30)), int(rng.integers(2, 20))
        mask[y : y + 24, x : x + 28] = 255
        image[mask > 0] += 180
        cv2.imwrite(str(root / "im" / f"toy_{i}.png"), image)
        cv2.imwrite(str(root / "gt" / f"toy_{i}.png"), mask)


def hq_recipe(tmp_path: Path, **changes: object) -> Recipe:
    if not (tmp_path / "data").exists():
        write_folder(tmp_path / "data")
        torch.manual_seed(1)
        save_sam(build_sam(replace(TOY, hq=False, output="sam")), tmp_path / "sam.pth")
    recipe = Recipe(
        network=TOY,
        loop=LoopConfig(
            steps=2, lr=1e-3, optimizer="adam", schedule="step", milestone=1, save_every=1, validate_every=1
        ),
        folders=FolderData(root=tmp_path / "data", sets=("im:gt",), validation=("im:gt",)),
        start=tmp_path / "sam.pth",
        unit="epoch",
        images_per_batch=2,
        points=256,
    )
    return replace(recipe, **changes)  # type: ignore[arg-type]


class Partly(nn.Module):
    """Of its layers one has a gradient in every batch, one in every fourth, one never."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.always, self.seldom, self.never = (nn.Linear(3, 1) for _ in range(3))

    def loss(self, draw: BatchRandomness) -> dict[str, torch.Tensor]:
        x = torch.randn(8, 3, generator=draw.torch)
        y = self.always(x) + (self.seldom(x) if draw.batch % 4 == 1 else 0)
        return {"loss": (y - 1).square().mean()}


def train_partly(folder: Path, accumulate: int, rank: int = 0, world: int = 1) -> None:
    model = Partly()
    config = LoopConfig(steps=4, lr=0.1, weight_decay=0.5, accumulate=accumulate)
    Loop(model, model.loss, config, folder, rank=rank, world=world).run()
