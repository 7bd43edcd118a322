"""Small stand-ins for tests of the pipeline: a tiny network with fixed weights, trackers that are told what to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from vidseg.sam.build import build_sam
from vidseg.sam.config import Output, SamConfig
from vidseg.sam.model import Sam
from vidseg.types import Frame, Prompt, State, Tracks, VideoInfo
from vidseg.weights.catalog import find_local
from vidseg.weights.fit import config_from_metadata
from vidseg_pipelines.discovery import DiscoveryOptions, discover_objects


def shipped_config() -> SamConfig:
    """The configuration of the embedded compact weights."""
    path = find_local("compact")
    assert path is not None
    with safe_open(path, framework="pt") as file:
        return config_from_metadata(SamConfig, file.metadata()["config"], str(path))


TINY = replace(
    shipped_config(),
    image_size=128,
    prompt_dim=32,
    decoder_mlp_dim=64,
    iou_hidden_dim=32,
    mask_in_channels=8,
)


def tiny_sam(seed: int = 0, output: Output = TINY.output) -> Sam:
    """The shipped network in toy width, with random but fixed weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_sam(replace(TINY, output=output)).eval()


def search_quickly(*args: Any, **how: Any) -> list[np.ndarray]:
    """A search for objects with fewer clicks, and without a closer look at parts of the frame."""
    return discover_objects(*args, **{**how, "tiles": False, "options": DiscoveryOptions(points_per_side=5)})


class EncoderCounter:
    """Counts the images that pass the encoder of a network."""

    def __init__(self, sam: Sam) -> None:
        self.images = 0
        sam.image_encoder.register_forward_hook(self._count)

    def _count(self, module: torch.nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        self.images += len(inputs[0])


class BoxesEverywhere:
    """A tracker that reports the same N boxes on every frame, moving by a pixel per frame."""

    lookahead = 0
    wants_masks = False
    finds_objects = True

    def __init__(self, count: int) -> None:
        self.count = count
        self.video: VideoInfo | None = None

    def start(self, video: VideoInfo) -> None:
        self.video = video

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        height, width = frame.hw
        n = self.count
        x = np.linspace(0, width * 0.6, n) + frame.index % 5
        y = np.linspace(0, height * 0.5, n)
        boxes = np.stack([x, y, x + width * 0.3, y + height * 0.4], 1).astype(np.float32).reshape(n, 4)
        return [Tracks(frame.index, np.arange(1, n + 1), boxes, np.ones(n, np.float32))]

    def finish(self) -> list[Tracks]:
        return []

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        pass


class KeepMasks(BoxesEverywhere):
    """A tracker that keeps the masks of its prompts where they are. Its state is the number of steps."""

    wants_masks = True
    finds_objects = False

    def __init__(self) -> None:
        super().__init__(0)
        self.masks: dict[int, np.ndarray] = {}
        self.steps = 0

    def start(self, video: VideoInfo) -> None:
        super().start(video)
        self.masks, self.steps = {}, 0

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        self.steps += 1
        for prompt in prompts:
            assert prompt.mask is not None
            self.masks[prompt.object_id] = prompt.mask
        ids = sorted(self.masks)
        n = len(ids)
        maps = np.stack([self.masks[i] for i in ids]).astype(np.float32) if n else np.zeros((0, *frame.hw), np.float32)
        boxes = np.zeros((n, 4), np.float32)
        for row, mask in enumerate(maps):
            ys, xs = np.nonzero(mask)
            boxes[row] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        return [
            Tracks(
                frame.index, np.array(ids, np.int64), boxes, np.ones(n, np.float32), masks=torch.from_numpy(0.9 * maps)
            )
        ]

    def state_dict(self) -> State:
        return {"steps": self.steps, **{f"mask.{i}": torch.from_numpy(m) for i, m in self.masks.items()}}

    def load_state_dict(self, state: State) -> None:
        self.steps = int(state["steps"])
        self.masks = {int(k.removeprefix("mask.")): v.numpy() for k, v in state.items() if isinstance(v, torch.Tensor)}


class DriftMasks(KeepMasks):
    """Its objects move by a pixel per frame, and it can let go of them."""

    can_remove = True

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        self.masks = {i: np.roll(mask, 1, axis=1) for i, mask in self.masks.items()}
        return super().step(frame, prompts)

    def remove(self, ids: Sequence[int]) -> None:
        for i in ids:
            self.masks.pop(i, None)


def frames(count: int, height: int = 72, width: int = 128) -> list[Frame]:
    """Deterministic textured frames."""
    rng = np.random.default_rng(5)
    base = rng.integers(0, 255, (height, width + count, 3), np.uint8)
    return [Frame(i, 100 * i, i / 24, np.ascontiguousarray(base[:, i : i + width])) for i in range(count)]
