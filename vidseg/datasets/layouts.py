"""Where the official data sets have their files, below the data root; the first folder may be the root itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vidseg.errors import InputError

#: The six sets of HQSeg-44K (seven folders) and its validation sets: (images, masks) below the data root.
HQSEG_TRAIN = {
    "dis5k": ("DIS5K/DIS-TR/im", "DIS5K/DIS-TR/gt"),
    "thinobject": ("thin_object_detection/ThinObject5K/images_train", "thin_object_detection/ThinObject5K/masks_train"),
    "fss": ("cascade_psp/fss_all", "cascade_psp/fss_all"),
    "duts-tr": ("cascade_psp/DUTS-TR", "cascade_psp/DUTS-TR"),
    "duts-te": ("cascade_psp/DUTS-TE", "cascade_psp/DUTS-TE"),
    "ecssd": ("cascade_psp/ecssd", "cascade_psp/ecssd"),
    "msra": ("cascade_psp/MSRA_10K", "cascade_psp/MSRA_10K"),
}
HQSEG_VAL = {
    "dis5k-vd": ("DIS5K/DIS-VD/im", "DIS5K/DIS-VD/gt"),
    "coift": ("thin_object_detection/COIFT/images", "thin_object_detection/COIFT/masks"),
    "hrsod": ("thin_object_detection/HRSOD/images", "thin_object_detection/HRSOD/masks_max255"),
    "thinobject-te": (
        "thin_object_detection/ThinObject5K/images_test",
        "thin_object_detection/ThinObject5K/masks_test",
    ),
}
SA1B = "sa1b"
"""SA-1B: NAME.jpg with NAME.json, in any folders below this one."""


@dataclass(frozen=True, slots=True)
class JsonLayout:
    """A data set with an annotation file, and the folder that its file names are in."""

    annotations: str
    images: str


JSON_LAYOUTS = {
    "coco": JsonLayout("coco/annotations/instances_val2017.json", "coco/val2017"),
    "lvis": JsonLayout("lvis/lvis_v1_val.json", "coco"),
    "uvo": JsonLayout("UVO/FrameSet/UVO_frame_val.json", "UVO/uvo_videos_frames"),
    "ytvis2019": JsonLayout("ytvis_2019/valid.json", "ytvis_2019/valid/JPEGImages"),
    "hq-ytvis": JsonLayout("hq-ytvis/ytvis_hq-test.json", "ytvis_2019/train/JPEGImages"),
}
MASK_FOLDERS = HQSEG_VAL
"""Sets of hq44k-val: folders of images and masks."""
BIG = "BIG/test"
DAVIS = "DAVIS"
SGINW = "seginw"
SGINW_FILE = "valid/_annotations_min1cat.coco.json"
_SGINW = """
    Airplane-Parts Bottles Brain-Tumor Chicken Cows Electric-Shaver Elephants Fruits Garbage Ginger-Garlic Hand-Metal
    Hand House-Parts HouseHold-Items Nutterfly-Squireel Phones Poles Puppies Rail Salmon-Fillet Strawberry Tablets
    Toolkits Trash Watermelon
"""
SGINW_SETS = tuple(_SGINW.split())


def find(root: Path, relative: str) -> Path | None:
    """``root/relative``, or the same without its first folder when ``root`` is that folder; None when there is none."""
    inner = Path(*PurePosixPath(relative).parts[1:])
    return next((path for path in (root / relative, root / inner) if path != root and path.exists()), None)


def need(root: Path, benchmark: str, wanted: Sequence[str], instead: str = "") -> list[Path]:
    """The paths of ``wanted`` below ``root``.

    Raises:
        InputError: one is missing; the line names all that are wanted. ``instead`` says what else can be given.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such data folder")
    found = {relative: find(root, relative) for relative in wanted}
    missing = [relative for relative, path in found.items() if path is None]
    if missing:
        rest = [relative for relative in wanted if relative not in missing]
        others = f", beside {', '.join(rest)}" if rest else ""
        raise InputError(
            f"{benchmark}: {', '.join(missing)} missing in {root}: put the official data there{others}{instead}"
        )
    return [path for path in found.values() if path is not None]
