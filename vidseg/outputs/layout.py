"""Names of the files in the output folder of a run."""

from __future__ import annotations

from collections.abc import Mapping

MANIFEST = "run.json"
JOURNAL = "masks.jsonl"
OVERLAY = "overlay.mp4"
DAVIS = "davis"
LABELME = "labelme"
MOTS_PNG = "mots.zip"
CVAT = "cvat"
LABEL_STUDIO = "label-studio"
DATUMARO = "datumaro"
YOLO = "yolo"
FRAMES = "frames"
CUTOUT = "cutout"
CUTOUT_VIDEO = "cutout.webm"
YTVIS = "ytvis.json"
COCO = "coco.json"
COCO_RESULTS = "coco_results.json"
MOTS = "mots.txt"
REPORT = "report.html"
PARQUET = "masks.parquet"
SNAPSHOT = "snapshot.safetensors"
STATES = "states"
"""Folder of the states that `--keep-states` keeps, one file per state, named after the first frame still to do."""
LOCK = "run.lock"
PAGE = "page.json"
"""What `vidseg ui` keeps beside the journal: colours of objects, and what was drawn where."""
CHANGES = "changes.jsonl"
"""Lines of the journal that `vidseg ui` computed out of order; a kill leaves it there."""
HISTORY = "history"
"""Folder of what the steps of the user in `vidseg ui` replaced, for undo and redo."""

EXPORTED: Mapping[str, str] = {
    "ytvis": YTVIS,
    "coco": COCO,
    "coco-results": COCO_RESULTS,
    "mots": MOTS,
    "mots-png": MOTS_PNG,
    "cvat": CVAT,
    "davis": DAVIS,
    "labelme": LABELME,
    "label-studio": LABEL_STUDIO,
    "yolo": YOLO,
    "datumaro": DATUMARO,
    "parquet": PARQUET,
    "frames": FRAMES,
    "cutout": CUTOUT,
    "cutout-webm": CUTOUT_VIDEO,
    "report": REPORT,
    "overlay": OVERLAY,
}
"""Format to the file or folder that an export of it writes."""

PICTURES = ("*.jpg", "*.jpeg", "*.png", "*.bmp", "*.webp", "*.tif", "*.tiff")
"""Files that images of frames may be, as patterns."""

FOLDERS: Mapping[str, tuple[str, ...]] = {
    DAVIS: ("*.png",),
    CVAT: ("annotations.xml", "labels.json"),
    LABELME: ("*.json", *PICTURES),
    LABEL_STUDIO: ("tasks.json", "config.xml"),
    YOLO: ("data.yaml", "labels/train/*.txt", *(f"images/train/{pattern}" for pattern in PICTURES)),
    DATUMARO: ("annotations/default.json", *(f"images/default/{pattern}" for pattern in PICTURES)),
    FRAMES: PICTURES,
    CUTOUT: ("*.png",),
    HISTORY: ("*.jsonl", "journal.json"),
    STATES: ("*.safetensors",),
}
"""Folder to the files in it that a run, a format or the page writes, as patterns."""

OUTPUTS = (  # the manifest goes first: what a killed --overwrite leaves must not pass for a finished run
    MANIFEST,
    OVERLAY,
    DAVIS,
    YTVIS,
    COCO,
    COCO_RESULTS,
    MOTS,
    MOTS_PNG,
    PARQUET,
    CUTOUT_VIDEO,
    REPORT,
    JOURNAL,
    SNAPSHOT,
    STATES,
    PAGE,
    CHANGES,
    HISTORY,
)
"""All that a run writes, but for the folders of formats that were asked for (``FOLDERS``)."""
