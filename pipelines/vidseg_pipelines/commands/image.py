"""``vidseg image``: masks of still images from boxes, clicks, or found automatically."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vidseg.config import Device, Dtype, Offline
from vidseg.errors import UsageError
from vidseg.limits import PIXEL_LIMIT

if TYPE_CHECKING:
    from vidseg.sam.config import Output


@dataclass(frozen=True)
class ImageCommand:
    """Segment images: NAME.png (one colour per object), NAME.json (masks as COCO RLE, scores), NAME_overlay.jpg.

    Without a box or point everything is segmented automatically.

    Examples:
      vidseg image photo.jpg --box 100,80,400,360 --output masks
      vidseg image photo.jpg --point 640,360/-700,90 --candidates all --output masks
      vidseg image photo.jpg --box 100,80,400,360 --attention --output masks
      vidseg image photos/ --auto --model sam-hq-vit-l --output masks
    """

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """Image files, folders of them, or 'patterns'; the prompts are used on each image."""
    output: Path
    """Folder to write to."""
    box: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """[ID@]x1,y1,x2,y2 - an object by its box in pixels, right and bottom exclusive. May be repeated."""
    point: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """[ID@]x,y[/x,y...] - an object by clicks; a leading - marks a click on background. May be repeated."""
    auto: bool = False
    """Find all objects (the default without --box and --point)."""
    points_per_side: int = 32
    """Automatic: clicks along each side of the image."""
    min_iou: float | None = None
    """Automatic: minimum predicted quality (default: 0.88, SAM 2 0.8)."""
    min_stability: float = 0.95
    """Automatic: minimum stability score."""
    crop_layers: int = 0
    """Automatic: also search 2x2, 4x4, ... overlapping crops, for small objects."""
    min_area: int = 0
    """Automatic: fill holes and remove islands of fewer pixels."""
    model: str = "compact"
    """Catalogue name (see `vidseg weights list`), checkpoint file, or NAME=FILE."""
    masks: Literal["default", "sum", "hq", "sam"] = "default"
    """sum: SAM and HQ logits added. hq: the HQ mask alone, for one salient object. sam: without the HQ branch."""
    candidates: Literal["auto", "single", "best", "all"] = "auto"
    """Masks per prompt: one, the best of three, or all three. auto: one; for clicks the best of several passes over the
    image and its crops, keeping only the clicked parts. best: what is most likely an object (compact)."""
    zoom: Literal["auto", "always", "never"] = "auto"
    """Draw every object a second time, on a crop around it, and use the mean of both. auto: only with the compact
    model, and not with --candidates all."""
    device: Device = "auto"
    dtype: Dtype = "auto"
    offline: Offline = False
    attention: bool = False
    """Also write NAME_attention.jpg: for every box or point the image, and what SAM's output token and the HQ token
    attend to in the decoder's last token-to-image layer."""
    overwrite: bool = False
    """Replace files of earlier calls in the output folder."""
    max_pixels: int = PIXEL_LIMIT
    """Largest allowed image in pixels; raise it only for images that you trust."""

    def run(self) -> int:
        """Segment every image; 0 when all are done.

        Raises:
            UsageError: invalid options, or a prompt outside every image; a result exists already, or would replace an
                input image.
            InputError: no image can be read. PartialError: some cannot, or a prompt is outside; the others are done.
        """
        if not self.images:
            raise UsageError("no image given: vidseg image IMAGE... --output DIR")
        if self.auto and (self.box or self.point):
            raise UsageError("--auto cannot be combined with --box and --point: leave out one or the other")
        if self.attention and not (self.box or self.point):
            raise UsageError("--attention shows what the tokens of a prompt attend to: add --box or --point")

        from vidseg_pipelines.commands.image_files import segment_images

        return segment_images(self)

    @property
    def output_masks(self) -> Output | None:
        """Which masks of the network; None: what the weights were trained for."""
        return None if self.masks == "default" else self.masks
