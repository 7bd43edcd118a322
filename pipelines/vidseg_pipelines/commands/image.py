"""``vidseg image``: masks of still images from boxes, clicks, or found automatically."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from PIL import Image

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.config import Device, Dtype, Offline
from vidseg.errors import InputError, PartialError, UsageError
from vidseg.limits import PIXEL_LIMIT
from vidseg.loading import load_sam
from vidseg.masks import rle as run_lengths
from vidseg.masks.files import VOID
from vidseg.masks.frame_masks import decode_label_map
from vidseg.masks.palette import davis_palette
from vidseg.masks.rle import decode_window
from vidseg.outputs.folder import keep_apart
from vidseg.outputs.overlay import Drawing, draw_objects
from vidseg.outputs.style import OverlayStyle
from vidseg.prompt_text import parse_prompts
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg.sam.automatic import AutomaticOptions, automatic_masks
from vidseg.sam.config import Output
from vidseg.sam.mask_decoder import stability_score
from vidseg.sam.model import SegmentAnything
from vidseg.sam.zoom import draw_closely
from vidseg.types import Array, VideoInfo
from vidseg.video.images import read_image
from vidseg.weights.progress import DownloadBar
from vidseg_pipelines.drawing import draw_object, prompt_batch_of

_ENDS = (".png", "_overlay.jpg", ".json")
"""Suffixes of the output files of an image."""

_SHOWN = 5  # images that cannot be read


@dataclass(frozen=True)
class ImageCommand:
    """Segment images: NAME.png (one colour per object), NAME.json (masks as COCO RLE, scores), NAME_overlay.jpg.

    Without a box or point everything is segmented automatically.

    Examples:
      vidseg image photo.jpg --box 100,80,400,360 --output masks
      vidseg image photo.jpg --point 640,360/-700,90 --candidates all --output masks
      vidseg image *.jpg --auto --model sam-hq-vit-l --output masks
    """

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """Image files; the prompts are used on each."""
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
    image and its crops, keeping only the clicked parts."""
    zoom: Literal["auto", "always", "never"] = "auto"
    """Draw every object a second time, on a crop around it, and use the mean of both. auto: only with the compact
    model, and not with --candidates all."""
    device: Device = "auto"
    dtype: Dtype = "auto"
    offline: Offline = False
    overwrite: bool = False
    """Replace files of earlier calls in the output folder."""
    max_pixels: int = PIXEL_LIMIT
    """Largest allowed image in pixels; raise it only for images that you trust."""

    def run(self) -> int:
        """Segment every image; 0 when all are done.

        Raises:
            UsageError: invalid options, or a prompt outside an image; a result exists already, or would replace an
                input image.
            InputError: no image can be read. PartialError: some cannot; the others are done.
        """
        if not self.images:
            raise UsageError("no image given: vidseg image IMAGE... --output DIR")
        if self.auto and (self.box or self.point):
            raise UsageError("--auto cannot be combined with --box and --point: leave out one or the other")
        options = AutomaticOptions(
            points_per_side=self.points_per_side,
            pred_iou_thresh=self.min_iou,
            stability_score_thresh=self.min_stability,
            crop_n_layers=self.crop_layers,
            min_mask_region_area=self.min_area,
            candidates=None if self.candidates == "auto" else self.candidates,
            output=self._masks,
        )
        outputs = [[self.output / f"{name}{end}" for end in _ENDS] for name in _output_names(self.images)]
        self._check_outputs([path for paths in outputs for path in paths])
        device = resolve_device(self.device)
        dtype, progress = resolve_dtype(self.dtype, device), DownloadBar(self.model)
        sam = load_sam(self.model, device=device, dtype=dtype, offline=self.offline, progress=progress)
        failed: list[str] = []
        for paths, path in zip(outputs, map(Path, self.images), strict=True):
            try:
                rgb = read_image(path, self.max_pixels)
            except InputError as error:
                failed.append(str(error))
                continue
            records = self._prompted(sam, rgb) if self.box or self.point else _automatic(sam, rgb, options)
            make_folder(self.output)
            _write(paths, path, rgb, records, self.model)
        if failed:
            shown = [*failed[:_SHOWN], *([f"and {len(failed) - _SHOWN} more"] if len(failed) > _SHOWN else [])]
            text = f"{len(failed)} of {len(self.images)} images cannot be read: {'; '.join(shown)}"
            raise InputError(text) if len(failed) == len(self.images) else PartialError(text)
        return 0

    def _check_outputs(self, paths: Sequence[Path]) -> None:
        """Refuse to replace an input image, and results of earlier calls without --overwrite."""
        if self.output.exists() and not self.output.is_dir():
            raise UsageError(f"--output {self.output} is a file; give a folder")
        keep_apart(self.images, paths)
        there = [path for path in paths if path.exists()]
        if there and not self.overwrite:
            more = f" and {len(there) - 1} more exist" if len(there) > 1 else " exists"
            raise UsageError(f"{there[0]}{more}: use --overwrite or another --output")

    @property
    def _masks(self) -> Output | None:
        return None if self.masks == "default" else self.masks

    def _prompted(self, sam: SegmentAnything, rgb: Array) -> list[dict[str, Any]]:
        height, width = rgb.shape[:2]
        frame = VideoInfo(width=width, height=height, fps=Fraction(1))
        asked = parse_prompts(boxes=self.box, points=self.point, video=frame)
        (features,) = sam.encode([rgb])
        records: list[dict[str, Any]] = []
        for prompt in asked:
            if self.candidates == "auto":
                one = draw_object(sam, rgb, features, prompt, self.zoom, self._masks)
                drawn = [(one.logits, one.quality)]
            else:
                several, qualities = draw_closely(
                    sam, rgb, features, prompt_batch_of(prompt), self.zoom, self._masks, self.candidates
                )
                drawn = list(zip(several[0], qualities[0].tolist(), strict=True))
            for logits, iou in drawn:
                mask = run_lengths.encode((logits > 0).cpu().numpy())
                x1, y1, x2, y2 = run_lengths.bbox(mask).tolist()
                records.append(
                    {
                        "id": prompt.object_id if len(drawn) == 1 else len(records) + 1,
                        "object": prompt.object_id,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": run_lengths.area(mask),
                        "predicted_iou": iou,
                        "stability_score": float(stability_score(logits)),
                        "segmentation": mask,
                    }
                )
        return records


def _automatic(sam: SegmentAnything, rgb: Array, options: AutomaticOptions) -> list[dict[str, Any]]:
    """Records of all masks, large ones first, so that small ones stay visible in the label image."""
    found = sorted(automatic_masks(sam, rgb, options), key=lambda m: -m.area)
    return [{"id": i, **mask.record("coco_rle"), "segmentation": mask.rle} for i, mask in enumerate(found, 1)]


def _output_names(images: Sequence[str]) -> list[str]:
    """Stems of the files, with -2, -3, ... where several are equal."""
    names: list[str] = []
    for image in images:
        stem, number = Path(image).stem, 2
        name = stem
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names


def _write(paths: Sequence[Path], source: Path, rgb: Array, records: list[dict[str, Any]], model: str) -> None:
    """Write the three files of an image, in the order of ``_ENDS``."""
    label_file, overlay, table = paths
    height, width = rgb.shape[:2]
    shown = sorted(records, key=lambda r: -r["area"])  # small ones stay visible in front of large ones
    labels = decode_label_map([r["id"] for r in shown], [r["segmentation"] for r in shown], (height, width))
    drawings = []
    for r in shown:
        window, y0, x0 = decode_window(r["segmentation"])
        if window.size:
            drawings.append(Drawing(r["id"], window, y0, x0, float(r["predicted_iou"])))
    if labels.max(initial=0) >= VOID:  # which belongs to no object in a palette
        image = Image.fromarray(labels.astype(np.uint16))
    else:
        image = Image.fromarray(labels.astype(np.uint8), "L")
        image.putpalette(davis_palette().tobytes())
    with atomic_file(label_file) as file:
        image.save(file, "PNG")
    with atomic_file(overlay) as file:
        Image.fromarray(draw_objects(rgb, drawings, OverlayStyle(scores=True))).save(file, "JPEG", quality=92)
    plain = [{**r, "segmentation": r["segmentation"].to_coco()} for r in records]
    content = {"image": str(source), "width": width, "height": height, "model": model, "masks": plain}
    with atomic_file(table) as file:
        file.write(json.dumps(content).encode())
