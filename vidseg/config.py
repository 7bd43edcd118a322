"""The configuration tree: one frozen dataclass is the Python API, the YAML schema and the flags of ``vidseg run``."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from vidseg.address import redact
from vidseg.errors import UsageError, did_you_mean
from vidseg.limits import HIGHEST_LIMIT, PIXEL_LIMIT
from vidseg.object_texts import names_by_id, parse_removals
from vidseg.options import from_mapping as from_mapping
from vidseg.options import key_values as key_values
from vidseg.options import load_yaml as load_yaml
from vidseg.storage import object_url, url_of

SAVES = (
    *("davis", "ytvis", "coco", "coco-results", "mots", "mots-png", "cvat", "labelme", "label-studio", "yolo"),
    *("datumaro", "parquet", "frames", "cutout", "cutout-webm", "overlay", "report"),
)

C = TypeVar("C")
TEXT = "text"
"""Name of the detector that ``text`` is for."""
_MAX_SECONDS = 1_000_000
NOT_RESULT = {"result": False}
"""Metadata of a setting that does not affect the result: only its place, its device or its presentation."""

Device = Annotated[str, tyro.conf.arg(help="auto, cpu, cuda, cuda:N or mps.")]
"""A setting: the device that runs the networks."""
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    tyro.conf.arg(help="Precision of the networks; auto: bfloat16 or float16 where the device gains from it."),
]
"""A setting: the precision of the networks."""
Offline = Annotated[bool, tyro.conf.arg(help="Never use the network: missing weights are an error.")]
"""A setting: whether weights may be downloaded."""

_Repeat = tyro.conf.UseAppendAction[tuple[str, ...]]


@dataclass(frozen=True)
class RunConfig:
    """Segment the objects of one video: masks with stable ids, as DAVIS PNGs, YTVIS JSON and an overlay video.

    Examples:
      vidseg run video.mp4                                   # finds the objects automatically
      vidseg run video.mp4 --box 100,80,400,360              # one object, from a box on frame 0
      vidseg run video.mp4 --point 640,360 --point 25:90,40  # two objects, the second from frame 25 on
      vidseg run video.mp4 --box 1@9,9,80,90 --point 1@25:40,20/-70,80  # one object, corrected on frame 25
      vidseg run frames/ --mask first.png --save davis,ytvis
      vidseg run frames/ --from labelme labels/              # labelled there on some frames
      vidseg run video.mp4 --text "person. red car" --detect-every 30
      vidseg run video.mp4 --tracker boxes --boxes detections.json
      vidseg run rtsp://camera.local/live --output runs/door # until Ctrl-C
    """

    input: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")] = ""
    """Video file, folder or 'pattern' of images, camera:N, a stream (rtsp, rtmp, http and their secure forms), an
    object (s3://, gs://, az://; extra `cloud`), or - for standard input."""
    output: Path | None = field(default=None, metadata=NOT_RESULT)
    """Output folder (default: runs/NAME), or its URL in object storage (s3://, gs://, az://; extra `cloud`)."""
    tracker: str = "xmem"
    """Tracker: xmem, cutie, sam2, mask2former, boxes, or another installed one (see `vidseg doctor`)."""
    model: str = "compact"
    """Weights of HQ-SAM or SAM 2: a name from `vidseg weights list`, or a file (an official plain SAM: NAME=FILE, e.g.
    sam-vit-b=x.pth; LoRA or adapters: BASE+FILE)."""
    box: _Repeat = ()
    """[ID@][FRAME:]x1,y1,x2,y2 - an object by its box in pixels, right and bottom exclusive. May be repeated."""
    point: _Repeat = ()
    """[ID@][FRAME:]x,y[/x,y...] - an object by clicks; a leading - marks a background click. Clicks with the id and
    frame of a box form one prompt with it; on a later frame they correct the object. May be repeated."""
    mask: _Repeat = ()
    """[FRAME:]FILE - objects by a palette, label or black and white image. May be repeated."""
    from_: Annotated[tuple[str, Path] | None, tyro.conf.arg(name="from", metavar="FORMAT PATH")] = None
    """Objects labelled in another tool on some frames, which are followed to all others: labelme, cvat, coco or
    datumaro, and its file or folder (see docs/integrations.md)."""
    remove: _Repeat = ()
    """ID@FRAME - forget an object from this frame on; its id is never used again. May be repeated."""
    label: _Repeat = ()
    """ID=NAME - name of an object, for every output. May be repeated; several objects may share a name."""
    classes: Path | None = field(default=None, metadata=NOT_RESULT)
    """Names of all classes, so that their numbers are the same in the files of every run: a text file with one per
    line, or YAML or JSON (see docs/formats.md)."""
    boxes: Path | None = None
    """Boxes from any detector for `--tracker boxes`: COCO or YTVIS JSON, MOT or YOLO text (or a folder of YOLO text
    files), CSV with named columns, or a masks.jsonl."""
    save: str = "davis,ytvis,overlay"
    """What to write besides the journal, comma-separated: davis, ytvis, coco, coco-results, mots, mots-png, cvat,
    labelme, label-studio, yolo, datumaro, parquet, frames, cutout, cutout-webm, overlay, report; or none. See
    docs/formats.md."""
    overlay_style: _Repeat = field(default=(), metadata=NOT_RESULT)
    """KEY=VALUE[,KEY=VALUE] - style of the overlay: fill=0.4, contour=1, labels=yes, scores=no, text=1, trails=FRAMES,
    background=keep|dim|grey|blur|green|#rrggbb, side_by_side=no. May be repeated."""
    refine: Literal["auto", "box", "none"] = "auto"
    """box: HQ-SAM redraws every mask from the tracker's box (the paper's protocol). auto: it is prompted with the
    tracker's box and mask, and its mask is used only where both agree. none: the tracker's own masks."""
    zoom: Literal["auto", "always", "never"] = "auto"
    """Draw objects on crops around them, encoded larger than in the frame. auto: for first masks and corrections, and
    later where the crops cost no more than the frame that they replace; only with the compact model."""
    keep_still: bool = False
    """Do not draw an object again while neither its tracker mask nor its pixels change: saves time where camera and
    objects stand still (see docs/performance.md)."""
    max_objects: int = 5
    """Maximum number of objects to track, visible or not, when they are found automatically."""
    first_found_id: Annotated[int, tyro.conf.Suppress] = 0
    """Objects found automatically get ids from this one on; prompts of such ids correct them (in YAML). 0: they get ids
    above those of all prompts, and are searched for where there is no prompt."""
    detect_with: str = ""
    """Detector that finds objects when no prompt is given: text (see --text), mask2former or another installed one;
    default: HQ-SAM's automatic masks."""
    text: str | None = None
    """Find objects by name: "person. red car", phrases separated by full stops. Implies --detect-with text, an
    open-vocabulary detector (needs `pip install 'vidseg[hf]'`); also works next to prompts for other objects."""
    detect_every: int = 0
    """Look for new objects every N frames; 0: only at the start. A new object may take the place of one found earlier
    that has been absent for 30 frames or more."""
    detector_options: Annotated[dict[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Settings of the detector (in YAML)."""
    detector_option: _Repeat = ()
    """KEY=VALUE - a setting of the detector, e.g. model=FOLDER of --detect-with text. May be repeated."""
    direction: Literal["forward", "backward", "both"] = "forward"
    """Where to follow objects: forward, both (also from where they first appear back to the first frame), or backward
    (only back; results end at the last prompt). Back only in files and folders (see docs/corrections.md)."""
    frames: str = ":"
    """A:B - only frames A (inclusive) to B (exclusive), counted from 0."""
    stream: int | None = None
    """Number of the video stream to read, as ffprobe shows it (default: the largest of the default streams)."""
    deinterlace: bool = False
    """Deinterlace: merge the two fields of each frame into one image."""
    max_pixels: int = field(default=PIXEL_LIMIT, metadata=NOT_RESULT)
    """Largest allowed frame in pixels; raise it only for an input that you trust."""
    batch: int = 4
    """Frames per HQ-SAM encoder batch."""
    device: Device = field(default="auto", metadata=NOT_RESULT)
    dtype: Dtype = "auto"
    compile: bool = False
    """Put the image encoder through torch.compile: half a minute or more before the first frame, less in later runs.
    For long runs (see docs/performance.md)."""
    tracker_options: Annotated[dict[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Settings of the tracker (in YAML)."""
    tracker_option: _Repeat = ()
    """KEY=VALUE - a setting of the tracker. May be repeated."""
    snapshot_every: int = field(default=50, metadata=NOT_RESULT)
    """Frames between snapshots of the tracker's state, from which --resume continues."""
    keep_states: int = field(default=0, metadata=NOT_RESULT)
    """Keep the state every N frames, so that --continue begins near the correction; 0: none."""
    resume: bool = field(default=False, metadata=NOT_RESULT)
    """Continue an interrupted run in the output folder; without VIDEO: with its settings, whatever they are."""
    continue_: Annotated[bool, tyro.conf.arg(name="continue")] = field(default=False, metadata=NOT_RESULT)
    """Correct the run in the output folder: adds --point, --box, --mask, --remove and --label to its settings, and
    computes again from the first frame that they speak of (see docs/corrections.md). VIDEO can be left out."""
    overwrite: bool = field(default=False, metadata=NOT_RESULT)
    """Replace the run in the output folder."""
    read_timeout: float = field(default=30.0, metadata=NOT_RESULT)
    """Time limit in seconds for opening the input and for every frame. After it a file is an error and a stream is
    reconnected."""
    reconnect: int = field(default=10, metadata=NOT_RESULT)
    """Attempts in a row to reconnect a lost camera or stream, after 1, 2, 4, ... 30 s; 0: never."""
    drop: Literal["auto", "oldest", "none"] = "auto"
    """What to drop when a live source delivers frames faster than they are segmented: oldest drops those that have
    waited longest (at most 8 wait) and records how many; none drops nothing and lets the source wait. auto: oldest for
    cameras and streams, none for standard input. Frames of files are never dropped."""
    reader: Literal["pyav", "decord", "torchcodec", "nvdec"] = "pyav"
    """Decoder of a video file: PyAV, or another package in a separate process, checked against PyAV; nvdec: torchcodec
    with the decoder of an NVIDIA GPU."""
    video_id: int = field(default=1, metadata=NOT_RESULT)
    """Number of the video in coco and ytvis files; those of videos with different numbers can be merged. vidseg batch
    counts on from it."""
    offline: bool = field(default=False, metadata=NOT_RESULT)
    """Never use the network: missing weights and remote inputs are an error."""
    json_log: bool = field(default=False, metadata=NOT_RESULT)
    """Report events (start, progress, object, warning, error, done) as one JSON object per line on standard error."""
    config: Path | None = field(default=None, metadata=NOT_RESULT)
    """YAML file with any of these settings, or the run.json of a run to repeat it; flags take precedence."""

    def check(self) -> None:
        """Refuse invalid values (UsageError), before any file or device is used."""
        unknown = [s for s in self.saves if s not in SAVES]
        if unknown:
            raise UsageError(f"--save {unknown[0]}{did_you_mean(unknown[0], SAVES)}: allowed are {', '.join(SAVES)}")
        for name in ("max_objects", "batch", "snapshot_every", "max_pixels", "video_id"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        for name in ("detect_every", "reconnect", "keep_states", "first_found_id"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 0")
        if self.max_pixels > HIGHEST_LIMIT:
            raise UsageError(f"--max-pixels {self.max_pixels}: must be at most {HIGHEST_LIMIT} (16384x16384)")
        check_seconds("--read-timeout", self.read_timeout)
        if self.output is not None and url_of(self.output) and not object_url(self.output):
            raise UsageError(f"--output {url_of(self.output)}: a web server; give a folder, or a URL of s3, gs or az")
        ways = [f"--{name.strip('_')}" for name in ("continue_", "resume", "overwrite") if getattr(self, name)]
        if len(ways) > 1:
            raise UsageError(f"{ways[0]} and {ways[1]} cannot be combined")
        if self.continue_ and self.config is not None:
            raise UsageError("--continue takes the settings of the run: leave out --config")
        if self.boxes is not None and self.tracker != "boxes":
            raise UsageError(f"--boxes needs --tracker boxes; --tracker {self.tracker} takes none")
        if self.text is not None and self.detector != TEXT:
            raise UsageError(f"--text needs --detect-with {TEXT}; --detect-with {self.detector} takes none")
        self.all_detector_options()
        self.names, self.removals  # noqa: B018  (malformed texts)
        parse_frames(self.frames)

    @property
    def saves(self) -> tuple[str, ...]:
        """Names of ``save``, in order."""
        return tuple(s for s in (p.strip() for p in self.save.split(",")) if s and s != "none")

    @property
    def names(self) -> dict[int, str]:
        """Names of objects by id, from ``label``."""
        return names_by_id(self.label, last_counts=self.continue_)

    @property
    def removals(self) -> dict[int, int]:
        """Object id to the frame from which on it is forgotten, from ``remove``."""
        return parse_removals(self.remove)

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
        """The settings that affect the result, as JSON types; without its place, its device or its presentation."""
        return result_settings(self) | {"input": redact(self.input)}

    def digest(self) -> str:
        """sha256 of :meth:`content`."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()


def load_config(cls: type[C], path: Path) -> C:
    """Settings from a YAML file, or those that a run recorded in its ``run.json``.

    Raises:
        UsageError: as :func:`vidseg.options.load_yaml`; a run whose prompts came from Python is not in its run.json.
    """
    try:
        data = json.loads(path.read_bytes()) if path.suffix == ".json" else None
    except (OSError, ValueError, RecursionError):
        data = None  # refused below, in the words for other files
    if not isinstance(data, dict) or not {"config", "config_sha256", "status"} <= data.keys():
        return load_yaml(cls, path)
    if any(name.startswith("object ") for name in data.get("prompts", ())):
        raise UsageError(f"{path}: its prompts were given in Python and are not in the file; give them anew")
    return from_mapping(cls, data["config"], where=f"{path}: config")


def result_settings(config: Any) -> dict[str, Any]:
    """The settings of a dataclass that affect the result, as JSON types: all but those marked :data:`NOT_RESULT`."""
    values = {name: getattr(config, name) for name in _result_fields(config.__class__)}
    data: dict[str, Any] = json.loads(json.dumps(values, default=lambda value: url_of(value) or str(value)))
    return data


@functools.cache
def _result_fields(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls) if f.metadata.get("result", True))


def parse_frames(text: str) -> tuple[int, int | None]:
    """(first, end) of frames A:B; end is exclusive or None.

    Raises:
        UsageError: not A:B, or an empty range.
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
    """Refuse times outside (0, 1,000,000) seconds (UsageError)."""
    if not 0 < seconds < _MAX_SECONDS:  # NaN too
        raise UsageError(f"{flag} {seconds:g}: expected more than 0 and less than {_MAX_SECONDS} seconds")
