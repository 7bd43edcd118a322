"""The images of a run: its frames, as they are or cut out along the masks."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path, PurePath

import cv2
import numpy as np
from PIL import Image

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.errors import output_error
from vidseg.masks.frame_masks import FrameMasks
from vidseg.names import part_of
from vidseg.outputs.pyav import needs_pyav
from vidseg.outputs.recording import picture_name
from vidseg.types import Array, Frame, VideoInfo

_QUALITY = 95
_SOFTNESS = 0.9  # sigma in pixels of the edge of a cut-out


class PictureSink:
    """Writes every frame: a still as the file that it is, a frame of a video as ``VIDEO_00012.jpg``."""

    def __init__(self, folder: Path, video: str, stills: Path | None = None) -> None:
        """Create the folder; ``stills`` is where the files of the frames are.

        Raises:
            OutputError: it cannot be created.
        """
        self._folder, self._video, self._stills = make_folder(folder), video, stills

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Write one frame.

        Raises:
            OutputError: the file cannot be written.
        """
        path = self._folder / picture_name(self._video, frame.index, frame.name)
        if frame.name is not None and self._stills is not None and _same_file(self._stills / frame.name, path):
            return
        with atomic_file(path) as file:
            kind = Image.registered_extensions().get(PurePath(path.name).suffix.lower(), "PNG")
            kind = kind if kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP") else "PNG"
            Image.fromarray(frame.rgb).save(file, kind, quality=_QUALITY)

    def close(self) -> None:
        """Every file is finished when it is written."""


def _same_file(source: Path, path: Path) -> bool:
    """Give a file a second name where the file system can, else copy it; False where there is none."""
    if not source.is_file():
        return False
    part = part_of(path)
    try:
        try:
            os.link(source.resolve(), part)
        except OSError:
            shutil.copyfile(source, part)
        part.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return True


def cut_out_objects(rgb: Array, masks: FrameMasks) -> Array:
    """The objects of a frame on nothing: uint8 (H, W, 4), red, green, blue and how opaque, with soft edges."""
    inside = (masks.with_hw(rgb.shape[:2]).label_map > 0).astype(np.uint8) * 255
    alpha = np.asarray(cv2.GaussianBlur(inside, (0, 0), _SOFTNESS), np.uint8)
    return np.dstack([np.where(alpha[..., None] > 0, rgb, 0), alpha])


class CutoutSink:
    """Writes ``FOLDER/PICTURE.png`` of every frame, see :func:`cut_out_objects`."""

    def __init__(self, folder: Path, video: str) -> None:
        """Create the folder.

        Raises:
            OutputError: it cannot be created.
        """
        self._folder, self._video = make_folder(folder), video

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Write one frame.

        Raises:
            OutputError: the file cannot be written.
        """
        stem = PurePath(picture_name(self._video, frame.index, frame.name)).stem
        with atomic_file(self._folder / f"{stem}.png") as file:
            Image.fromarray(cut_out_objects(frame.rgb, masks)).save(file, "PNG", compress_level=1)

    def close(self) -> None:
        """Every file is finished when it is written."""


class CutoutVideoSink:
    """Writes the cut-outs as a WebM video with transparency."""

    def __init__(self, path: Path, info: VideoInfo) -> None:
        """Create the file.

        Raises:
            OutputError: it cannot be created, or PyAV is missing.
        """
        with needs_pyav("cutout-webm"):
            from vidseg.video.alpha import AlphaWriter
        time_base = info.time_base or 1 / info.fps
        self._writer = AlphaWriter(path, info.width, info.height, fps=info.fps, time_base=time_base)

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Append one frame."""
        self._writer.write(cut_out_objects(frame.rgb, masks), frame.pts)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
