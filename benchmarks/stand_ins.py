"""Small stand-ins for the papers' data sets, in their official folder layouts, to try `vidseg reproduce` on.

    python benchmarks/stand_ins.py DATA OUT [--images 40] [--videos 6]
    vidseg reproduce hq44k-val --data OUT

DATA holds val/images, val/masks (NAME.png or NAME__K.png) and videos/CLIP/{frames,masks}. Images are linked; masks,
annotation files and the boxes of an imagined detector (the true ones, shaken) are written. OUT must not be inside the
repository. The numbers on these sets mean nothing outside this project.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vidseg.datasets.layouts import BIG, HQSEG_VAL, JSON_LAYOUTS, SGINW, SGINW_FILE, SGINW_SETS
from vidseg.datasets.pairs import Item, find_pairs
from vidseg.evaluation.region import read_binary
from vidseg.masks.boxes import mask_box
from vidseg.masks.noise import noise_mask
from vidseg.masks.rle import encode

Mask = npt.NDArray[np.bool_]
DETECTORS = ("coco-focalnet-dino", "uvo-focalnet-dino", "lvis-vitdet-h")


def link(source: Path, target: Path) -> None:
    """A symbolic link, making its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.symlink_to(source.resolve())


def save(mask: Mask, target: Path) -> None:
    """A mask of 0 and 255."""
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(target)


def write(content: object, target: Path) -> None:
    """A json file, making its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content))


def xywh(mask: Mask, rng: np.random.Generator | None = None) -> list[float]:
    """The box of a mask, with ``rng`` shaken by up to a tenth of its sides."""
    x1, y1, x2, y2 = (float(v) for v in mask_box(mask))
    if rng is None:
        return [x1, y1, x2 - x1, y2 - y1]
    dx, dy = rng.uniform(-0.1, 0.1, (2, 2)) * [[x2 - x1], [y2 - y1]]
    return [x1 + dx[0], y1 + dy[0], max(1.0, x2 - x1 + dx[1] - dx[0]), max(1.0, y2 - y1 + dy[1] - dy[0])]


def hq44k_val(items: Sequence[Item], out: Path) -> None:
    """Four sets of the images in turn; an image with several masks is there once for each."""
    pairs = [(item, mask) for item in items for mask in item.masks]
    for number, (item, mask) in enumerate(pairs):
        images, masks = list(HQSEG_VAL.values())[number % len(HQSEG_VAL)]
        link(item.image, out / images / f"{mask.stem}{item.image.suffix}")
        link(mask, out / masks / f"{mask.stem}.png")


def big(items: Sequence[Item], out: Path) -> None:
    """NAME_im.jpg, NAME_gt.png and a coarse NAME_seg.png: the ground truth with noise along its outline."""
    for number, item in enumerate(items):
        mask = read_binary(item.masks[0])
        coarse = noise_mask(np.random.default_rng(number), mask.astype(np.float32) * 255)
        picture = Image.fromarray(coarse.astype(np.uint8)).resize((mask.shape[1], mask.shape[0]))
        link(item.image, out / BIG / f"{item.name}_im{item.image.suffix}")
        save(mask, out / BIG / f"{item.name}_gt.png")
        save(np.asarray(picture) > 128, out / BIG / f"{item.name}_seg.png")


def image_file(items: Sequence[Item], categories: Sequence[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(COCO annotations, results of a detector): one category per source; every tenth detection is a false one."""
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, item in enumerate(items, 1):
        category = categories.index(item.source) + 1
        masks = [read_binary(path) for path in item.masks]
        height, width = masks[0].shape
        named = {"id": number, "file_name": item.image.name, "height": height, "width": width}
        images.append({**named, "coco_url": f"http://images.example/val2017/{item.image.name}"})
        for mask in masks:
            rle = encode(mask).to_coco()
            row = {"image_id": number, "category_id": category}
            area = {"area": int(mask.sum()), "iscrowd": 0}
            annotations.append({**row, **area, "id": len(annotations) + 1, "bbox": xywh(mask), "segmentation": rle})
            found.append({**row, "bbox": xywh(mask, rng), "score": round(float(rng.uniform(0.5, 1)), 3)})
            if len(found) % 10 == 9:
                box = [0.0, 0.0, width / 3, height / 3]
                found.append({**row, "bbox": box, "score": round(float(rng.uniform(0, 0.6)), 3)})
    named_categories = [{"id": k, "name": name, "frequency": "rcf"[k % 3]} for k, name in enumerate(categories, 1)]
    return {"images": images, "annotations": annotations, "categories": named_categories}, found


def detection_sets(items: Sequence[Item], out: Path) -> None:
    """COCO, LVIS, UVO and all 25 sets of SGinW from the same images."""
    names = sorted({item.source for item in items})
    truth, found = image_file(items, names)
    write(truth, out / JSON_LAYOUTS["coco"].annotations)
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    hidden = [{k: v for k, v in {**row, **lists}.items() if k != "file_name"} for row in truth["images"]]
    write({**truth, "images": hidden}, out / JSON_LAYOUTS["lvis"].annotations)
    one = [{**row, "category_id": 1} for row in truth["annotations"]]
    objects = {"images": truth["images"], "annotations": one, "categories": [{"id": 1, "name": "object"}]}
    write(objects, out / JSON_LAYOUTS["uvo"].annotations)
    for item in items:
        link(item.image, out / JSON_LAYOUTS["coco"].images / item.image.name)
        link(item.image, out / JSON_LAYOUTS["uvo"].images / item.image.name)
    for name in DETECTORS:
        write(found, out / "detections" / f"{name}.json")
    for number, name in enumerate(SGINW_SETS):
        item = items[number % len(items)]
        truth, found = image_file([item], names)
        file = out / SGINW / name / SGINW_FILE
        write(truth, file)
        link(item.image, file.parent / item.image.name)
        write(found, out / "detections" / "sginw-grounding-dino" / f"{name}.json")


def davis(clips: Sequence[Path], out: Path) -> None:
    """The DAVIS root with its list of sequences."""
    for clip in clips:
        for kind, folder in (("frames", "JPEGImages"), ("masks", "Annotations")):
            for file in sorted((clip / kind).iterdir()):
                link(file, out / "DAVIS" / folder / "480p" / clip.name / file.name)
    listing = out / "DAVIS" / "ImageSets" / "2017" / "val.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{clip.name}\n" for clip in clips))


def tube_sets(clips: Sequence[Path], out: Path) -> None:
    """YouTube-VIS 2019 (every fifth frame, as there) and HQ-YTVIS, and the results of an imagined tracker."""
    rng = np.random.default_rng(0)
    videos: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, clip in enumerate(clips, 1):
        files = sorted((clip / "frames").iterdir())[::5]
        maps = [np.asarray(Image.open(clip / "masks" / f"{file.stem}.png")) for file in files]
        names = [f"{clip.name}/{file.name}" for file in files]
        height, width = maps[0].shape
        sizes = {"height": height, "width": width, "length": len(files)}
        videos.append({"id": number, "file_names": names, **sizes})
        for name in ("ytvis2019", "hq-ytvis"):
            for file in files:
                link(file, out / JSON_LAYOUTS[name].images / clip.name / file.name)
        for value in sorted({int(v) for labels in maps for v in np.unique(labels)} - {0, 255}):
            masks = [labels == value for labels in maps]
            row = {"video_id": number, "category_id": 1 + number % 2}
            tubes = [encode(mask).to_coco() if mask.any() else None for mask in masks]
            areas = [int(mask.sum()) or None for mask in masks]
            boxes = [xywh(mask) if mask.any() else None for mask in masks]
            tube = {"segmentations": tubes, "areas": areas, "bboxes": boxes, "iscrowd": 0}
            annotations.append({**row, "id": len(annotations) + 1, **tube})
            shaken = [xywh(mask, rng) if mask.any() else None for mask in masks]
            found.append({**row, "score": round(float(rng.uniform(0.5, 1)), 3), "bboxes": shaken})
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "animal"}]
    for name in ("ytvis2019", "hq-ytvis"):
        truth = {"videos": videos, "annotations": annotations, "categories": categories}
        write(truth, out / JSON_LAYOUTS[name].annotations)
        write(found, out / "detections" / f"{name}.json")


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=40, help="images of all sets but hq44k-val, which has all")
    parser.add_argument("--videos", type=int, default=6)
    args = parser.parse_args()
    if Path(__file__).resolve().parents[1] in (args.out.resolve(), *args.out.resolve().parents):
        parser.error(f"{args.out} is inside the repository: data does not belong there")
    items = find_pairs(args.data / "val" / "images", args.data / "val" / "masks")
    few = items[:: max(1, len(items) // args.images)][: args.images]
    folders = sorted(path for path in (args.data / "videos").iterdir() if path.is_dir())
    clips = folders[:: max(1, len(folders) // args.videos)][: args.videos]
    hq44k_val(items, args.out)
    big(few, args.out)
    detection_sets(few, args.out)
    davis(clips, args.out)
    tube_sets(clips, args.out)
    print(f"{args.out}: {len(items)} images in hq44k-val, {len(few)} images and {len(clips)} videos in the other sets")


if __name__ == "__main__":
    main()
