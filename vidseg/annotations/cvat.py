"""CVAT 1.1, for video and for images: tracks and shapes in XML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from vidseg.annotations.frames import FrameFinder, Picture
from vidseg.annotations.shapes import Corners, Mask, Shape, box_of, corners_of, ellipse, filled, points_of
from vidseg.errors import InputError
from vidseg.text import read_bytes

_Found = tuple[Picture, str, int | None, ElementTree.Element]
_SHAPES = ("box", "polygon", "mask", "ellipse", "points", "polyline", "skeleton", "cuboid")


def read_cvat(path: Path, frames: FrameFinder) -> Iterator[Shape]:
    """Shapes of an ``annotations.xml``, or of the one in a folder: key frames of tracks, and shapes of images.

    Polygons, ellipses and masks are masks, boxes are boxes, points are clicks. A track is an object; its number is its
    group where all tracks have groups of their own, else it is counted from 1. What CVAT interpolated, or what
    is outside, is left out.

    Raises:
        InputError: no XML of CVAT; a shape without an inside, or turned.
    """
    path = path / "annotations.xml" if path.is_dir() else path
    data = read_bytes(path)
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not XML ({error})") from error
    if root.tag != "annotations":
        raise InputError(f"{path}: not a file of CVAT (<annotations> expected, got <{root.tag}>)")
    shapes = [*_tracked(root, str(path)), *_on_images(root, str(path))]
    pictures = list(dict.fromkeys(picture for picture, *_ in shapes))
    index_of = dict(zip(pictures, frames.find(pictures, str(path)), strict=True))
    for picture, label, key, element in shapes:
        index = index_of[picture]
        if index is not None:
            shown = picture.name or f"frame {picture.number}"
            yield _shape(element, f"{path}, {label} on {shown}", index, key, label, frames.hw)


def _tracked(root: ElementTree.Element, where: str) -> Iterator[_Found]:
    tracks = root.findall("track")
    groups = [_whole(track, "group_id", where, "0") for track in tracks]
    grouped = all(groups) and len({*groups}) == len(groups)
    size = root.find("meta//original_size")
    hw = None if size is None else (int(size.findtext("height") or 0), int(size.findtext("width") or 0))
    for place, (track, group) in enumerate(zip(tracks, groups, strict=True)):
        label, key = track.get("label") or "", group if grouped else place + 1
        for element in track:
            shown = element.get("outside") != "1" and element.get("keyframe", "1") == "1"
            if element.tag in _SHAPES and shown:
                yield Picture(number=_whole(element, "frame", f"{where}, {label}"), hw=hw), label, key, element


def _on_images(root: ElementTree.Element, where: str) -> Iterator[_Found]:
    for image in root.iterfind("image"):
        number, width, height = (_whole(image, name, f"{where}, an image") for name in ("id", "width", "height"))
        picture = Picture(image.get("name") or "", number, (height, width))
        for element in image:
            if element.tag in _SHAPES:
                yield picture, element.get("label") or "", None, element


def _shape(
    element: ElementTree.Element, where: str, frame: int, key: int | None, label: str, hw: tuple[int, int]
) -> Shape:
    if element.get("rotation", "0.0").strip("0."):
        raise InputError(f"{where}: a turned {element.tag} cannot be read; draw a polygon")
    match element.tag:
        case "polygon":
            return Shape(where, frame, key, label, mask=filled(_points(element, where, 3), hw))
        case "mask":
            return Shape(where, frame, key, label, mask=_mask(element, where, hw))
        case "ellipse":
            cx, cy, rx, ry = (_number(element, name, where) for name in ("cx", "cy", "rx", "ry"))
            return Shape(where, frame, key, label, mask=ellipse((cx, cy), (rx, ry), hw))
        case "box":
            corners = [_number(element, name, where) for name in ("xtl", "ytl", "xbr", "ybr")]
            return Shape(where, frame, key, label, box=box_of(corners, where))
        case "points":
            return Shape(where, frame, key, label, points=points_of(_points(element, where, 1), where))
    raise InputError(f"{where}: a {element.tag} has no inside; draw a polygon, a mask, a box or points")


def _mask(element: ElementTree.Element, where: str, hw: tuple[int, int]) -> Mask:
    """Runs of background and mask in turn, row by row within a box."""
    left, top, width, height = (_whole(element, name, where) for name in ("left", "top", "width", "height"))
    try:
        runs = np.array([int(run) for run in (element.get("rle") or "").split(",")], np.int64)
    except (ValueError, OverflowError):
        runs = np.array([-1])
    if min(left, top, runs.min()) < 0 or top + height > hw[0] or left + width > hw[1] or runs.sum() != width * height:
        raise InputError(f"{where}: its run-lengths do not fit their box, or the box does not fit the frame")
    mask = np.zeros(hw, np.bool_)
    window = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[top : top + height, left : left + width] = window.reshape(height, width)
    return mask


def _points(element: ElementTree.Element, where: str, least: int) -> Corners:
    return corners_of((element.get("points") or "").replace(";", ",").split(","), where, least)


def _number(element: ElementTree.Element, name: str, where: str, default: str = "") -> float:
    text = element.get(name, default)
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: {name}={text[:40]!r}: a number expected") from None


def _whole(element: ElementTree.Element, name: str, where: str, default: str = "") -> int:
    number = _number(element, name, where, default)
    if not number.is_integer():
        raise InputError(f"{where}: {name}={number:g}: a whole number expected")
    return int(number)
