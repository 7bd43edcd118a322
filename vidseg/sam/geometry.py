"""How an image becomes the input of SAM: sizes as plain data, and the official resize, normalisation and padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vidseg.errors import InputError
from vidseg.runtime import send
from vidseg.sam.config import STRIDE, InputConfig, SamConfig

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes (height, width) of one image on its way: ``original`` -> ``resized`` -> ``padded`` (right and bottom).

    ``one_step``: logits get the original size at once, as in SAM 2, not by way of the padded input.
    """

    original: Size
    resized: Size
    padded: Size
    one_step: bool = False

    @property
    def between(self) -> tuple[Size, Size]:
        """Sizes of logits on their way to the original one: the padded input, and its part that is kept."""
        return (self.low_res, self.low_res) if self.one_step else (self.padded, self.resized)

    @property
    def grid(self) -> Size:
        """Cells of the embedding."""
        return self.padded[0] // STRIDE, self.padded[1] // STRIDE

    @property
    def low_res(self) -> Size:
        """Size of the mask logits the decoder gives and of the mask prompts it takes: 4 times the grid."""
        return 4 * self.grid[0], 4 * self.grid[1]

    @property
    def low_res_frame(self) -> Size:
        """Rows and columns of :attr:`low_res` that show the frame, not the padding."""
        sizes = zip(self.resized, self.low_res, self.padded, strict=True)
        rows, columns = (max(1, round(resized * low / padded)) for resized, low, padded in sizes)
        return rows, columns

    @property
    def scale(self) -> tuple[float, float]:
        """Factors (x, y) from original to resized pixels. Ratios of whole sizes, so they may differ a little."""
        return self.resized[1] / self.original[1], self.resized[0] / self.original[0]


def frame_geometry(original: Size, config: InputConfig, side: int | None = None) -> Geometry:
    """The sizes of an image of ``original`` (height, width): longest side to ``side``, then padded.

    SAM 2 squashes it to the square of its image size instead.
    ``side`` is the network's image size unless given. A side never becomes shorter than one pixel, however extreme the
    aspect ratio.
    """
    if config.pad == "squash":
        square = (config.image_size, config.image_size)
        return Geometry(original, square, square, one_step=True)
    height, width = original
    scale = (side or config.image_size) / max(height, width)
    resized = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    if config.pad == "square":
        return Geometry(original, resized, (config.image_size, config.image_size))
    return Geometry(original, resized, (-(-resized[0] // 32) * 32, -(-resized[1] // 32) * 32))


def check_image(image: npt.NDArray[Any]) -> None:
    """Refuse anything that is not a non-empty uint8 RGB image of shape (H, W, 3)."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"image is {what}; expected uint8 RGB of shape (H, W, 3): convert grey or RGBA images first")
    if 0 in image.shape:
        raise InputError(f"image of {image.shape[1]}x{image.shape[0]} pixels is empty")


def preprocess(
    images: Sequence[npt.NDArray[np.uint8]], geometries: Sequence[Geometry], config: SamConfig, device: torch.device
) -> Float[Tensor, "b 3 h w"]:
    """Resize (PIL bilinear on uint8, antialiased), normalise, then zero-pad; all images share one padded size.

    The result is float32 and lies channels-last in memory.
    """
    height, width = geometries[0].padded
    mean, std = send(torch.tensor([config.pixel_mean, config.pixel_std]), device)
    batch = torch.zeros(len(images), height, width, 3, device=device)
    for row, image, geometry in zip(batch, images, geometries, strict=True):
        h, w = geometry.resized
        if (h, w) != image.shape[:2]:
            image = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))
        pixels = send(torch.from_numpy(np.array(image, order="C")), device)
        row[:h, :w] = (pixels - mean) / std
    return batch.permute(0, 3, 1, 2)


def click_grid(per_side: int) -> npt.NDArray[np.float64]:
    """Clicks (K, 2), (x, y) in 0..1, at the centres of a grid of ``per_side`` * ``per_side`` cells, row by row."""
    steps = (np.arange(per_side) + 0.5) / max(per_side, 1)
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
