"""Pack the training data into one small file, for a machine that gets the repository and no other data.

    python benchmarks/pack_training_data.py DATA build/training-data.zip

DATA has the folders train/{images,masks}, cutouts and videos of the recipes in configs/training. The file holds the
same folders: reduced images as WebP, masks as PNG, and the clips that may be trained on; of the development clips only
the names, which say which clips these are. It is for `benchmarks/train_gpu.sh`, which unpacks it.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vidseg.atomic_files import atomic_file
from vidseg.datasets.pairs import find_pairs, load, load_cutout
from vidseg.files import IMAGE_SUFFIXES, data_files, data_folders
from vidseg.training.splits import dev_clips, shows_clip
from vidseg_trackers.xmem.training.bank import read_clip

LIMIT_MB = 25


class Pack:
    """A zip file that counts its bytes by kind."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self.file, self.bytes = file, Counter[str]()

    def image(self, name: str, image: Image.Image, **options: object) -> None:
        """``image`` as the file ``name``, whose suffix is the format."""
        buffer = io.BytesIO()
        image.save(buffer, Path(name).suffix[1:], **options)
        self.file.writestr(name, buffer.getbuffer())
        self.bytes[Path(name).parts[0]] += buffer.tell()

    def picture(self, name: str, pixels: npt.NDArray[np.uint8], quality: int) -> None:
        """RGB or RGBA."""
        self.image(f"{name}.webp", Image.fromarray(pixels), quality=quality, method=4)

    def mask(self, name: str, labels: npt.NDArray[np.uint8]) -> None:
        """Numbers of objects; in the fewest bits."""
        bits = next(b for b in (1, 2, 4, 8) if labels.max() < 1 << b)
        image = Image.fromarray(labels, "P")
        image.putpalette([channel for value in range(256) for channel in [value * 37 % 256] * 3])
        self.image(f"{name}.png", image, bits=bits, optimize=True)


def pack(data: Path, pack: Pack, options: argparse.Namespace) -> None:
    """All of ``data`` that a recipe trains on."""
    dev = dev_clips(data / "videos")
    for item in find_pairs(data / "train" / "images", data / "train" / "masks"):
        if shows_clip(item.name, dev):
            continue
        sample = load(item, options.still)
        pack.picture(f"train/images/{item.name}", sample.image, options.quality)
        for k, mask in enumerate(sample.masks):
            suffix = f"__{k}" if len(sample.masks) > 1 else ""
            binary = Image.fromarray(mask > 127)
            pack.image(f"train/masks/{item.name}{suffix}.png", binary, optimize=True)
    for path in data_files(data / "cutouts", IMAGE_SUFFIXES):
        pack.picture(f"cutouts/{path.stem}", np.dstack(load_cutout(path, options.cutout)), options.quality)
    for folder in data_folders(data / "videos"):
        name = f"videos/{folder.name}"
        pack.file.mkdir(name)
        if folder.name in dev:
            continue
        clip = read_clip(folder, options.clip)
        for k, (frame, labels) in enumerate(zip(clip.frames, clip.labels, strict=True)):
            pack.picture(f"{name}/frames/{k:05d}", frame, options.quality)
            pack.mask(f"{name}/masks/{k:05d}", labels)


def main() -> None:
    """Write the file, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--still", type=int, default=320, help="longer side of stills")
    parser.add_argument("--cutout", type=int, default=176, help="longer side of cut-outs")
    parser.add_argument("--clip", type=int, default=224, help="shorter side of clips")
    parser.add_argument("--quality", type=int, default=32, help="of WebP, 0 to 100")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(options.output) as file, zipfile.ZipFile(file, "w") as archive:
        packed = Pack(archive)
        pack(options.data, packed, options)
    size = options.output.stat().st_size / 1e6
    parts = ", ".join(f"{name} {count / 1e6:.1f}" for name, count in packed.bytes.items())
    print(f"{options.output}: {size:.1f} MB of at most {LIMIT_MB} ({parts})")
    if size > LIMIT_MB:
        raise SystemExit("too large: lower --quality or --still")


if __name__ == "__main__":
    main()
