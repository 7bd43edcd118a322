"""From an image and its prompts to run-lengths, with one pass of the encoder for all masks that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from vidseg.errors import UsageError
from vidseg.masks.rle import empty_rle, encode
from vidseg.sam.config import InputConfig, Output
from vidseg.sam.model import FrameFeatures, SegmentAnything
from vidseg.types import Array, Rle
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.object_prompts import ObjectPrompt, stack_prompts
from vidseg_pipelines.reproduce.post_refinement import PostRefiner

_CHUNK = 16  # masks that are brought to the image's size at a time


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An encoded image: its features, its size (height, width) in pixels, and itself (H, W, 3)."""

    features: FrameFeatures
    size: tuple[int, int]
    image: Array


@dataclass(frozen=True)
class MaskPredictor:
    """A network, the masks of it that are compared, how images enter it, and what refines its masks afterwards."""

    sam: SegmentAnything
    outputs: tuple[Output, ...]
    squash: bool
    post: PostRefiner | None = None

    @property
    def fit(self) -> str:
        """How images enter the network, in words."""
        squashes = self.squash or self.sam.config.pad == "squash"
        return "stretched to the network's square" if squashes else "aspect kept, padded"

    def view(self, values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """An image or grey mask in the pixels that prompts speak of: as it is, or stretched to the network's square.

        The stretching is plain bilinear interpolation, cut to whole numbers, as in HQ-SAM's evaluator.
        """
        if not self.squash:
            return values
        planes = torch.from_numpy(np.array(values)).reshape(*values.shape[:2], -1).permute(2, 0, 1)[None].float()
        side = self.sam.config.image_size
        scaled = F.interpolate(planes, (side, side), mode="bilinear", align_corners=False)[0]
        flat = scaled.permute(1, 2, 0).numpy().astype(np.uint8)
        return np.ascontiguousarray(flat[..., 0] if values.ndim == 2 else flat)

    def scale(self, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Factors (4,) that bring boxes on an image of ``size`` (height, width) into the pixels of :meth:`view`."""
        side = self.sam.config.image_size
        factors = (side / size[1], side / size[0]) if self.squash else (1.0, 1.0)
        return np.array(factors * 2, np.float32)

    def encode(self, image: Array) -> EncodedImage:
        """Features of a uint8 RGB image (H, W, 3)."""
        (features,) = self.sam.encode([self.view(image)])
        return EncodedImage(features, (image.shape[0], image.shape[1]), image)

    @torch.no_grad()
    def predict(self, picture: EncodedImage, asked: Sequence[ObjectPrompt | None]) -> dict[str, list[Rle]]:
        """By name of the output: one mask of the image's size per prompt; None asks for nothing and gives nothing."""
        there = [a for a in asked if a is not None]
        nothing = empty_rle(*picture.size)
        painted: dict[str, list[Rle]] = {}
        for output in self.outputs:
            drawn = iter(self._drawn(picture, there, output) if there else [])
            painted[output] = [nothing if a is None else next(drawn) for a in asked]
        return painted

    def _drawn(self, picture: EncodedImage, asked: Sequence[ObjectPrompt], output: Output) -> list[Rle]:
        prompts = stack_prompts(asked, picture.features.geometry, self.squash)
        (answer,) = self.sam.decode([picture.features], [prompts], output)
        rles = []
        for part, iou in zip(answer.logits.split(_CHUNK), answer.iou.split(_CHUNK), strict=True):
            if self.squash:  # the evaluator goes to the original size in one step
                full = F.interpolate(part, picture.size, mode="bilinear", align_corners=False)
            else:
                full = replace(answer, logits=part, iou=iou, hq_iou=None).upsampled()
            masks = (full[:, 0] > 0).cpu().numpy()
            rles += [encode(mask if self.post is None else self.post(picture.image, mask)) for mask in masks]
        return rles


def make_predictor(config: ReproduceConfig, sam: SegmentAnything, hq_output: str, squashes: bool) -> MaskPredictor:
    """A predictor with the masks and the fit that ``config`` asks for.

    ``hq_output``: the HQ mask that the paper scores on this benchmark, "hq" or "" for what the network was made for.
    ``squashes``: whether the published evaluator squashes its images.

    Raises:
        UsageError: HQ masks of a plain SAM.
    """
    outputs = outputs_of(config, sam.config, hq_output)
    square = sam.config.pad == "square"
    squash = config.fit == "squash" or (config.fit == "auto" and squashes and square)
    return MaskPredictor(sam, outputs, squash)


def outputs_of(config: ReproduceConfig, network: InputConfig, hq_output: str) -> tuple[Output, ...]:
    """The masks that are compared: those asked for, else SAM's and the HQ mask where there is one.

    Raises:
        UsageError: HQ masks of a plain SAM.
    """
    known: dict[str, Output] = {"sam": "sam", "hq": "hq", "sum": "sum"}
    default = ["sam", hq_output or network.output] if network.hq else ["sam"]
    wanted = [known[name] for name in dict.fromkeys(config.chosen_masks or default)]
    lacking = [name for name in wanted if name != "sam" and not network.hq]
    if lacking:
        raise UsageError(
            f"--masks {lacking[0]}: the model '{config.model or 'compact'}' is a plain SAM without an HQ mask; use "
            "--masks sam, or an HQ-SAM"
        )
    return tuple(wanted)
