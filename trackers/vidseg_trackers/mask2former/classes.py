"""Names and official numbers of the classes that the published networks know."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from vidseg.classes import ClassSet
from vidseg.errors import UsageError
from vidseg.weights.catalog import ENTRIES

Classes = Literal["auto", "ytvis2019", "ytvis2021", "coco", "numbers"]

_NAMES = {
    "ytvis2019": (
        "person giant_panda lizard parrot skateboard sedan ape dog snake monkey hand rabbit duck cat cow fish train"
        " horse turtle bear motorbike giraffe leopard fox deer owl surfboard airplane truck zebra tiger elephant"
        " snowboard boat shark mouse frog eagle earless_seal tennis_racket"
    ),
    "ytvis2021": (
        "airplane bear bird boat car cat cow deer dog duck earless_seal elephant fish flying_disc fox frog giant_panda"
        " giraffe horse leopard lizard monkey motorbike mouse parrot person rabbit shark skateboard snake snowboard"
        " squirrel surfboard tennis_racket tiger train truck turtle whale zebra"
    ),
    "coco": (
        "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter"
        " bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee"
        " skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle"
        " wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake"
        " chair couch potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven"
        " toaster sink refrigerator book clock vase scissors teddy_bear hair_drier toothbrush"
    ),
}
_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_COCO_IDS = tuple(i for i in range(1, 91) if i not in _COCO_GAPS)


def class_set(choice: Classes, count: int, weights: str) -> ClassSet:
    """The classes of a network with ``count`` of them, loaded from ``weights`` (a catalogue name or a file).

    "auto" knows the catalogue's names, files that are named as the publisher named them, and COCO by its 80 classes;
    everything else is numbered.

    Raises:
        UsageError: ``choice`` has another number of classes.
    """
    if choice == "auto":
        choice = _guess(count, weights)
    ids = _COCO_IDS if count == len(_COCO_IDS) else tuple(range(1, count + 1))
    if choice == "numbers":
        return ClassSet({str(i): i for i in ids})
    names = tuple(_NAMES[choice].split())
    if len(names) != count:
        raise UsageError(f"mask2former option classes={choice} has {len(names)} classes, the network has {count}")
    return ClassSet(dict(zip(names, ids, strict=True)))


def _guess(count: int, weights: str) -> Classes:
    if count == len(_COCO_IDS):
        return "coco"
    if count == 40:
        name = Path(weights).name
        for entry in ENTRIES:
            if entry.family == "mask2former" and (
                name in (entry.name, entry.file) or (entry.md5_prefix and f"_{entry.md5_prefix}." in name)
            ):
                year = re.search(r"20\d\d", entry.name)
                return "ytvis2019" if year and year[0] == "2019" else "ytvis2021"
    return "numbers"
