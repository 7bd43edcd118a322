"""Names of the files in the output folder of a run."""

from __future__ import annotations

from collections.abc import Mapping

MANIFEST = "run.json"
JOURNAL = "masks.jsonl"
OVERLAY = "overlay.mp4"
DAVIS = "davis"
LABELME = "labelme"
YTVIS = "ytvis.json"
COCO = "coco.json"
COCO_RESULTS = "coco_results.json"
MOTS = "mots.txt"
REPORT = "report.html"
SNAPSHOT = "snapshot.safetensors"
LOCK = "run.lock"

EXPORTED: Mapping[str, str] = {
    "ytvis": YTVIS,
    "coco": COCO,
    "coco-results": COCO_RESULTS,
    "mots": MOTS,
    "davis": DAVIS,
    "labelme": LABELME,
    "report": REPORT,
    "overlay": OVERLAY,
}
"""Format to the file or folder that an export of it writes."""

FOLDERS: Mapping[str, tuple[str, ...]] = {
    DAVIS: ("*.png",),
    LABELME: ("*.json", "*.jpg"),
}
"""Folder to the files in it that a format writes, as patterns."""

OUTPUTS = (  # the manifest goes first: what a killed --overwrite leaves must not pass for a finished run
    MANIFEST,
    OVERLAY,
    DAVIS,
    YTVIS,
    COCO,
    COCO_RESULTS,
    MOTS,
    REPORT,
    JOURNAL,
    SNAPSHOT,
)
"""All that a run writes, but for the folders of formats that were asked for (``FOLDERS``)."""
