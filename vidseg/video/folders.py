"""What a folder holds: videos, frames, or something else. The same for one video and for a batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidseg.address import parse_address
from vidseg.errors import InputError
from vidseg.files import IMAGE_SUFFIXES, counts, natural_key

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob"),
    *(".ts", ".m2ts", ".mts", ".m2t", ".tod", ".mod", ".mxf", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".ogg", ".ogm"),
    *(".3gp", ".3g2", ".mj2", ".gif", ".apng", ".y4m", ".nut", ".ivf", ".mjpeg", ".mjpg", ".h264", ".264", ".avc"),
    *(".h265", ".265", ".hevc", ".obu"),
)
"""Endings of videos, in lower case. A file with another ending is a video when its content is."""

_NAMED = 5
_UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".tmp")
_HEAD_BYTES = 400
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_PICTURES = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")  # "brands" of the same boxes
_BEGINNINGS = (
    *(b"\x1aE\xdf\xa3", b"FLV", b"OggS", b"0&\xb2u", b"\x06\x0e+4", b"DKIF", b"YUV4MPEG2", b"GIF8"),
    *(b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"),
)
_SYNC, _PACKET, _TIMED_PACKET = 0x47, 188, 192  # of MPEG-TS, and of its kind with 4 bytes of time before each packet


@dataclass(frozen=True)
class FolderContent:
    """The files and folders directly in a folder that count (see :mod:`vidseg.files`), by name, in natural order."""

    videos: tuple[Path, ...]
    images: tuple[Path, ...]
    folders: tuple[Path, ...]
    others: tuple[Path, ...]

    @property
    def frames(self) -> tuple[Path, ...]:
        """The images, less those that are called like a video beside them: posters and thumbnails."""
        stems = {video.stem for video in self.videos}
        return tuple(image for image in self.images if image.stem not in stems)


def look_into(folder: Path) -> FolderContent:
    """What a folder holds, by the names of its files.

    Raises:
        InputError: the folder cannot be read.
    """
    kinds: dict[str, list[Path]] = {"videos": [], "images": [], "folders": [], "others": []}
    try:
        with os.scandir(folder) as entries:  # unlike Path.iterdir it knows what is a folder
            for entry in entries:
                suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  (a text)
                if not counts(entry.name):
                    continue
                if entry.is_dir():
                    kind = "folders"
                elif not entry.is_file():
                    continue
                else:
                    kind = "videos" if suffix in VIDEO_SUFFIXES else "images" if suffix in IMAGE_SUFFIXES else "others"
                kinds[kind].append(folder / entry.name)
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    return FolderContent(**{k: tuple(sorted(paths, key=lambda p: natural_key(p.name))) for k, paths in kinds.items()})


def video_of(folder: Path) -> tuple[Path | None, list[str]]:
    """The video that a folder stands for, None when it stands for the images in it; and notes on what is left out.

    Images are the frames of a video when there are more of them than videos beside them.

    Raises:
        InputError: several videos, nothing but folders, or the folder cannot be read.
    """
    content = look_into(folder)
    videos = content.videos
    if not videos and not content.images:
        videos = tuple(filter(is_video, content.others))
    if len(content.frames) > len(videos):
        return None, _left_out(videos, "images")
    if len(videos) > 1:
        raise InputError(f"{folder}: a folder of {len(videos)} videos: name one of them, or use vidseg batch {folder}")
    if not videos and not content.others and content.folders:
        names = ", ".join(path.name for path in content.folders[:3])
        raise InputError(f"{folder}: no images and no video in it, only folders ({names}, ...): name one of them")
    return (videos[0], _left_out(content.images, f"video {videos[0].name}")) if videos else (None, [])


def _left_out(files: Sequence[Path], kept: str) -> list[str]:
    return [f"left out, next to the {kept}: {listed([path.name for path in files])}"] if files else []


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def is_video(file: Path) -> bool:
    """Whether the content of a file is a video, whatever its name; downloads that are not finished are none."""
    if file.suffix.lower() in _UNFINISHED:
        return False
    from vidseg.video.reader import VideoSource  # here: a folder of images needs no decoder

    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        if not _begins_like_a_video(head):
            return False
        VideoSource(parse_address(str(file))).close()
    except (OSError, InputError):
        return False
    return True


def _begins_like_a_video(head: bytes) -> bool:
    if head[4:8] in _BOXES:
        return head[8:12] not in _PICTURES
    if head.startswith(b"RIFF"):
        return head[8:12] == b"AVI "
    packets = ((0, _PACKET), (4, _TIMED_PACKET))
    return head.startswith(_BEGINNINGS) or any(
        len(head) > first + size and head[first] == head[first + size] == _SYNC for first, size in packets
    )
