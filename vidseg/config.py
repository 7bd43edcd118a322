"""The configuration tree: one frozen dataclass is the Python API, the YAML schema and the flags of ``vidseg run``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vidseg.address import redact
from vidseg.errors import UsageError, did_you_mean
from vidseg.limits import HIGHEST_LIMIT, PIXEL_LIMIT
from vidseg.names import check_label, printable
from vidseg.options import from_mapping as from_mapping
from vidseg.options import key_values as key_values
from vidseg.options import load_yaml as load_yaml

SAVES = (
    *("davis", "ytvis", "coco", "coco-results", "mots", "mots-png", "cvat", "labelme", "label-studio", "yolo"),
    *("frames", "cutout", "cutout-webm", "overlay", "report"),
)

TEXT = "text"
"""Name of the detector that ``text`` is for."""
_MAX_SECONDS = 1_000_000
NOT_RESULT = {"result": False}
"""Metadata of a setting that does not decide the result: where it goes, where it is made, how it is shown."""

Device = Annotated[str, tyro.conf.arg(help="auto, cpu, cuda, cuda:N or mps.")]
"""A setting: where networks run."""
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    tyro.conf.arg(help="Precision of the networks; auto is bfloat16 on CUDA devices that compute in it, else float32."),
]
"""A setting: what networks compute in."""
Offline = Annotated[bool, tyro.conf.arg(help="Never use the network: missing weights are an error.")]
"""A setting: whether weights may be fetched."""

_Repeat = tyro.conf.UseAppendAction[tuple[str, ...]]


@dataclass(frozen=True)
class RunConfig:
    """Segment the objects of one video: masks with stable ids, as DAVIS PNGs, YTVIS json and an overlay video.

    Examples:
      vidseg run video.mp4                                   # finds the objects by itself
      vidseg run video.mp4 --box 100,80,400,360              # one object, from a box on frame 0
      vidseg run video.mp4 --point 640,360 --point 25:90,40  # two objects, the second from frame 25 on
      vidseg run video.mp4 --box 1@9,9,80,90 --point 1@25:40,20/-70,80  # one object, corrected on frame 25
      vidseg run frames/ --mask first.png --save davis,ytvis
      vidseg run video.mp4 --text "person. red car" --detect-every 30
      vidseg run video.mp4 --tracker boxes --boxes detections.json
      vidseg run rtsp://camera.local/live --output runs/door # until Ctrl-C
    """

    input: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")] = ""
    """Video file, folder or 'pattern' of images, camera:N, a stream (rtsp, rtmp, http and their secure forms), or - for
    standard input."""
    output: Path | None = field(default=None, metadata=NOT_RESULT)
    """Output folder (default: runs/NAME)."""
    tracker: str = "xmem"
    """Who follows the objects: xmem, cutie, sam2, boxes, or another installed tracker (see `vidseg doctor`)."""
    model: str = "compact"
    """Weights of HQ-SAM or SAM 2: a name of `vidseg weights list`, or a file (a plain SAM: NAME=FILE, e.g.
    sam-vit-b=x.pth)."""
    box: _Repeat = ()
    """[ID@][FRAME:]x1,y1,x2,y2 - an object by its box in pixels, right and bottom exclusive. May be repeated."""
    point: _Repeat = ()
    """[ID@][FRAME:]x,y[/x,y...] - an object by clicks; a leading - marks a click on background. With the id and frame
    of a box they belong together; on a later frame they correct the object. May be repeated."""
    mask: _Repeat = ()
    """[FRAME:]FILE - objects by a palette, label or black and white image. May be repeated."""
    label: _Repeat = ()
    """ID=NAME - name of an object, which all files carry. May be repeated; several objects may have one name."""
    classes: Path | None = field(default=None, metadata=NOT_RESULT)
    """Names of all classes, which so have the same numbers in the files of every run: a text file with one per line, or
    YAML or JSON (see docs/formats.md)."""
    boxes: Path | None = None
    """Boxes of any detector for `--tracker boxes`: COCO or YTVIS json, MOT or YOLO txt (or a folder of YOLO txt), csv
    with named columns, or a masks.jsonl."""
    save: str = "davis,ytvis,overlay"
    """What to write besides the journal, comma-separated: davis, ytvis, coco, coco-results, mots, mots-png, cvat,
    labelme, label-studio, yolo, frames, cutout, cutout-webm, overlay, report (see docs/formats.md); or none."""
    overlay_style: _Repeat = field(default=(), metadata=NOT_RESULT)
    """KEY=VALUE[,KEY=VALUE] - looks of the overlay: fill=0.4, contour=1, labels=yes, scores=no, text=1, trails=FRAMES,
    background=keep|dim|grey|blur|green|#rrggbb, side_by_side=no. May be repeated."""
    refine: Literal["auto", "box", "none"] = "auto"
    """box: HQ-SAM redraws every mask from the tracker's box (the paper's protocol). auto: it is prompted with all the
    tracker knows and kept only where both agree. none: the tracker's own masks."""
    zoom: Literal["auto", "always", "never"] = "auto"
    """Draw objects on crops around them, encoded larger than the frame shows them. auto: first masks and corrections,
    and in the video where crops cost no more than the frame that they replace; only with the compact model."""
    max_objects: int = 5
    """Most objects to follow, visible or not, when they are found automatically."""
    detect_with: str = ""
    """What finds objects when no prompt is given: text (see --text), mask2former or another installed detector;
    default: HQ-SAM's automatic masks."""
    text: str | None = None
    """Find objects by name: "person. red car", phrases with full stops between them. Means --detect-with text, an
    open-vocabulary detector (needs `pip install 'vidseg[hf]'`); searches also when prompts name other objects."""
    detect_every: int = 0
    """Look for new objects every N frames; 0: only at the start. A new one may take the place of one that was found
    before and has been absent for 30 frames or more."""
    detector_options: Annotated[dict[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Settings of the detector (in YAML)."""
    detector_option: _Repeat = ()
    """KEY=VALUE - a setting of the detector, e.g. model=FOLDER of --detect-with text. May be repeated."""
    frames: str = ":"
    """A:B - only frames A (included) to B (excluded), counted from 0."""
    stream: int | None = None
    """Number of the video stream to read, as ffprobe shows it (default: the largest of the default streams)."""
    deinterlace: bool = False
    """Make one picture of the two fields of each frame of an interlaced video."""
    max_pixels: int = field(default=PIXEL_LIMIT, metadata=NOT_RESULT)
    """Largest frame in pixels; raise it only for an input that you trust."""
    batch: int = 4
    """Frames per HQ-SAM encoder batch."""
    device: Device = field(default="auto", metadata=NOT_RESULT)
    dtype: Dtype = "auto"
    tracker_options: Annotated[dict[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Settings of the tracker (in YAML)."""
    tracker_option: _Repeat = ()
    """KEY=VALUE - a setting of the tracker. May be repeated."""
    snapshot_every: int = field(default=50, metadata=NOT_RESULT)
    """Frames between snapshots of the tracker's state, from which --resume goes on."""
    resume: bool = field(default=False, metadata=NOT_RESULT)
    """Go on with an interrupted run in the output folder."""
    overwrite: bool = field(default=False, metadata=NOT_RESULT)
    """Replace what is in the output folder."""
    read_timeout: float = field(default=30.0, metadata=NOT_RESULT)
    """Seconds that opening the input, or its next frame, may take. Then a file is an error and a stream is connected to
    again."""
    reconnect: int = field(default=10, metadata=NOT_RESULT)
    """How often in a row a lost camera or stream is connected to again, after 1, 2, 4, ... 30 s; 0: never."""
    drop: Literal["auto", "oldest", "none"] = "auto"
    """When the frames of a live source come faster than they are segmented: oldest leaves out those that wait longest
    (8 wait at most) and records how many; none leaves out nothing and lets the source wait. auto: oldest for cameras
    and streams, none for standard input. Files never lose frames."""
    reader: Literal["pyav", "decord", "torchcodec"] = "pyav"
    """What decodes a video file: PyAV, or another package in a process of its own, checked against PyAV."""
    offline: bool = field(default=False, metadata=NOT_RESULT)
    """Never use the network: missing weights and remote inputs are an error."""
    json_log: bool = field(default=False, metadata=NOT_RESULT)
    """Progress as one json object per line on standard error."""
    config: Path | None = field(default=None, metadata=NOT_RESULT)
    """YAML file with any of these settings; flags win over it."""

    def check(self) -> None:
        """Refuse values that cannot be right, before any file or device is touched (UsageError)."""
        unknown = [s for s in self.saves if s not in SAVES]
        if unknown:
            raise UsageError(f"--save {unknown[0]}{did_you_mean(unknown[0], SAVES)}: allowed are {', '.join(SAVES)}")
        for name in ("max_objects", "batch", "snapshot_every", "max_pixels"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        for name in ("detect_every", "reconnect"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 0")
        if self.max_pixels > HIGHEST_LIMIT:
            raise UsageError(f"--max-pixels {self.max_pixels}: must be at most {HIGHEST_LIMIT} (16384x16384)")
        check_seconds("--read-timeout", self.read_timeout)
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other")
        if self.boxes is not None and self.tracker != "boxes":
            raise UsageError(f"--boxes needs --tracker boxes; --tracker {self.tracker} takes none")
        if self.text is not None and self.detector != TEXT:
            raise UsageError(f"--text needs --detect-with {TEXT}; --detect-with {self.detector} takes none")
        self.all_detector_options()
        names_by_id(self.label)
        parse_frames(self.frames)

    @property
    def saves(self) -> tuple[str, ...]:
        """Names of ``save``, in order."""
        return tuple(s for s in (p.strip() for p in self.save.split(",")) if s and s != "none")

    @property
    def names(self) -> dict[int, str]:
        """Names of objects by id, from ``label``."""
        return names_by_id(self.label)

    @property
    def frame_range(self) -> tuple[int, int | None]:
        """(first, end) of ``frames``; end is exclusive or None."""
        return parse_frames(self.frames)

    def all_tracker_options(self) -> dict[str, Any]:
        """``tracker_options`` with ``KEY=VALUE`` flags applied; values are read as YAML scalars."""
        options = self.tracker_options | key_values("--tracker-option", self.tracker_option)
        if self.boxes is not None:
            options["file"] = str(self.boxes)
        return options

    @property
    def detector(self) -> str:
        """Name of the detector; empty: HQ-SAM's automatic masks."""
        return self.detect_with or (TEXT if self.text is not None else "")

    def all_detector_options(self) -> dict[str, Any]:
        """``detector_options`` with ``KEY=VALUE`` flags applied, and the text."""
        options = self.detector_options | key_values("--detector-option", self.detector_option)
        if options and not self.detector:
            raise UsageError(f"detector option {next(iter(options))} needs --detect-with or --text")
        return options if self.text is None else {**options, "text": self.text}

    def content(self) -> dict[str, Any]:
        """The settings that decide the result, json-ready; not where it goes, where it is made, or how it is shown."""
        return result_settings(self) | {"input": redact(self.input)}

    def digest(self) -> str:
        """sha256 of :meth:`content`."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()


def names_by_id(labels: Sequence[str]) -> dict[int, str]:
    """``ID=NAME`` texts of ``--label`` as a mapping.

    Raises:
        UsageError: another form, a name with control characters, two names for one id.
    """
    names: dict[int, str] = {}
    for text in labels:
        number, equals, name = text.partition("=")
        if not equals or not number.strip().isdecimal() or int(number) < 1:
            raise UsageError(f"--label {printable(text)}: ID=NAME expected, e.g. 1=bear")
        name = check_label(f"--label of object {int(number)}", name.strip())
        if names.setdefault(int(number), name) != name:
            raise UsageError(f"--label: object {int(number)} has two names, '{names[int(number)]}' and '{name}'")
    return names


def result_settings(config: Any) -> dict[str, Any]:
    """The settings of a dataclass that decide the result, json-ready: all but those marked :data:`NOT_RESULT`."""
    names = [f.name for f in dataclasses.fields(config) if f.metadata.get("result", True)]
    data: dict[str, Any] = json.loads(json.dumps({name: getattr(config, name) for name in names}, default=str))
    return data


def parse_frames(text: str) -> tuple[int, int | None]:
    """(first, end) of frames A:B; end is exclusive or None.

    Raises:
        UsageError: another text, or an empty range.
    """
    first, colon, end = text.partition(":")
    try:
        result = int(first or 0), int(end) if end else None
    except ValueError:
        colon = ""
    if not colon or result[0] < 0 or (result[1] is not None and result[1] <= result[0]):
        raise UsageError(f"--frames {text}: A:B with 0 <= A < B expected, e.g. 0:100, 50: or :200")
    return result


def check_seconds(flag: str, seconds: float) -> None:
    """Refuse times that nobody can wait for (UsageError)."""
    if not 0 < seconds < _MAX_SECONDS:  # also what is no number
        raise UsageError(f"{flag} {seconds:g}: expected more than 0 and less than {_MAX_SECONDS} seconds")
