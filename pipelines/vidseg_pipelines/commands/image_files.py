"""What ``vidseg image`` does: every image into its three files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.errors import InputError, PartialError, UsageError, VidsegError
from vidseg.files import is_pattern, matches
from vidseg.heap import FrameHeap
from vidseg.loading import load_sam
from vidseg.masks import rle as run_lengths
from vidseg.masks.files import VOID
from vidseg.masks.frame_masks import decode_label_map
from vidseg.masks.palette import davis_palette
from vidseg.masks.rle import decode_window
from vidseg.names import printable
from vidseg.outputs.folder import keep_apart
from vidseg.outputs.overlay import Drawing, draw_objects
from vidseg.outputs.style import OverlayStyle
from vidseg.prompt_text import parse_prompts
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg.sam.attention import heat_over, token_attention
from vidseg.sam.automatic import AutomaticOptions, automatic_masks
from vidseg.sam.mask_decoder import stability_score
from vidseg.sam.model import SegmentAnything
from vidseg.sam.zoom import draw_closely
from vidseg.types import Array, Prompt, VideoInfo
from vidseg.video.folders import look_into
from vidseg.video.images import read_image
from vidseg.weights.progress import DownloadBar
from vidseg_pipelines.drawing import draw_object, prompt_batch_of

if TYPE_CHECKING:
    from vidseg_pipelines.commands.image import ImageCommand

_ENDS = (".png", "_overlay.jpg", ".json")
"""Suffixes of the output files of an image."""

_SHOWN = 5  # images that failed
_ANY_SIZE = 1 << 30  # of a frame that no prompt lies outside of


def segment_images(command: ImageCommand) -> int:
    """Segment every image of ``command``; 0 when all are done. Errors as :meth:`ImageCommand.run`."""
    options = AutomaticOptions(
        points_per_side=command.points_per_side,
        pred_iou_thresh=command.min_iou,
        stability_score_thresh=command.min_stability,
        crop_n_layers=command.crop_layers,
        min_mask_region_area=command.min_area,
        candidates=None if command.candidates == "auto" else command.candidates,
        output=command.output_masks,
    )
    _asked(command, (_ANY_SIZE, _ANY_SIZE))  # what is no prompt for any image is refused before the first
    images = _image_files(command.images)
    ends = (*_ENDS, "_attention.jpg") if command.attention else _ENDS
    outputs = [[command.output / f"{name}{end}" for end in ends] for name in _output_names(images)]
    _check_outputs(command, images, [path for paths in outputs for path in paths])
    device = resolve_device(command.device)
    dtype, progress = resolve_dtype(command.dtype, device), DownloadBar(command.model)
    sam = load_sam(command.model, device=device, dtype=dtype, offline=command.offline, progress=progress)
    failed, heap = list[VidsegError](), FrameHeap()
    for paths, path in zip(outputs, images, strict=True):
        try:
            rgb = read_image(path, command.max_pixels)
            _asked(command, rgb.shape[:2])
        except InputError as error:
            failed.append(error)
            continue
        except UsageError as error:  # a prompt lies outside this image
            failed.append(UsageError(f"{path}: {error}"))
            continue
        records = _prompted(command, sam, rgb) if command.box or command.point else _automatic(sam, rgb, options)
        make_folder(command.output)
        if command.attention:
            _write_attention(command, sam, rgb, paths[len(_ENDS)])
        _write(paths[: len(_ENDS)], path, rgb, records, command.model)
        heap.did()
    if failed:
        raise _error_of(failed, len(images))
    return 0


def _error_of(failed: Sequence[VidsegError], total: int) -> VidsegError:
    """What failed, as one error."""
    if total == 1:
        return failed[0]
    shown = [*map(str, failed[:_SHOWN]), *([f"and {len(failed) - _SHOWN} more"] if len(failed) > _SHOWN else [])]
    unread = all(isinstance(error, InputError) for error in failed)
    text = f"{len(failed)} of {total} images {'cannot be read' if unread else 'failed'}: {'; '.join(shown)}"
    if len(failed) < total:
        return PartialError(text)
    return InputError(text) if any(isinstance(error, InputError) for error in failed) else UsageError(text)


def _image_files(named: Sequence[str]) -> list[Path]:
    """The files that arguments stand for: themselves, the images in a folder, or what a pattern matches.

    Raises:
        InputError: a folder without images, or a pattern without files.
    """
    files: list[Path] = []
    for text in named:
        path = Path(text)
        if path.is_dir():
            found, what = list(look_into(path).images), "no images in this folder"
        elif is_pattern(text):
            found, what = [one for one in map(Path, matches(text)) if one.is_file()], "no file of that name"
        else:
            found, what = [path], ""
        if not found:
            raise InputError(f"{printable(text)}: {what}")
        files += found
    return files


def _check_outputs(command: ImageCommand, images: Sequence[Path], paths: Sequence[Path]) -> None:
    """Refuse to replace an input image, and results of earlier calls without --overwrite."""
    if command.output.exists() and not command.output.is_dir():
        raise UsageError(f"--output {command.output} is a file; give a folder")
    keep_apart(images, paths)
    there = [path for path in paths if path.exists()]
    if there and not command.overwrite:
        more = f" and {len(there) - 1} more exist" if len(there) > 1 else " exists"
        raise UsageError(f"{there[0]}{more}: use --overwrite or another --output")


def _asked(command: ImageCommand, hw: tuple[int, ...]) -> list[Prompt]:
    """The prompts, fitted to an image (UsageError: one lies outside)."""
    height, width = hw
    frame = VideoInfo(width=width, height=height, fps=Fraction(1))
    return parse_prompts(boxes=command.box, points=command.point, video=frame)


def _write_attention(command: ImageCommand, sam: SegmentAnything, rgb: Array, path: Path) -> None:
    """A line per prompt: the image, then its tokens' attention."""
    (features,) = sam.encode([rgb])
    lines = []
    for prompt in _asked(command, rgb.shape[:2]):
        maps = token_attention(sam, features, prompt_batch_of(prompt))[0].cpu().numpy()
        lines.append(np.concatenate([rgb, *(heat_over(rgb, one) for one in maps)], axis=1))
    with atomic_file(path) as file:
        Image.fromarray(np.concatenate(lines)).save(file, "JPEG", quality=92)


def _prompted(command: ImageCommand, sam: SegmentAnything, rgb: Array) -> list[dict[str, Any]]:
    asked = _asked(command, rgb.shape[:2])
    (features,) = sam.encode([rgb])
    records: list[dict[str, Any]] = []
    for prompt in asked:
        if command.candidates == "auto":
            one = draw_object(sam, rgb, features, prompt, command.zoom, command.output_masks)
            drawn = [(one.logits, one.quality)]
        else:
            several, qualities = draw_closely(
                sam, rgb, features, prompt_batch_of(prompt), command.zoom, command.output_masks, command.candidates
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


def _output_names(images: Sequence[Path]) -> list[str]:
    """Stems of the files, with -2, -3, ... where several are equal."""
    names: dict[str, None] = {}
    for image in images:
        stem, number = image.stem, 2
        name = stem
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names[name] = None
    return list(names)


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
