"""Folders as inputs: what of their files is the video."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from media import barcode_frame, read_barcode, write_video
from vidseg.errors import InputError
from vidseg.video import open_source


def video(path: Path, first: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    return write_video(path, [barcode_frame(first + n) for n in range(3)])


def picture(path: Path, code: int = 50) -> None:
    Image.fromarray(barcode_frame(code)).save(path)


def codes(folder: Path) -> list[int]:
    return [read_barcode(frame.rgb) for frame in open_source(folder)]


def test_a_folder_of_one_video_is_that_video(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    file = video(folder / "clip.MP4")
    (folder / "notes.txt").write_text("no video")
    (folder / "._clip.mp4").write_bytes(b"no video either")
    (folder / "masks").mkdir()
    source = open_source(folder)
    assert source.info.name == "clip"
    assert [read_barcode(frame.rgb) for frame in source] == [0, 1, 2]
    picture(folder / "clip.jpg")  # a thumbnail
    assert codes(folder) == [0, 1, 2]
    assert open_source(folder).notes == ["left out, next to the video clip.MP4: clip.jpg"]
    file.rename(folder / "clip.recording")
    (folder / "clip.jpg").unlink()
    assert codes(folder) == [0, 1, 2]


def test_a_folder_of_frames_stays_one_beside_a_video(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        picture(folder / f"{number}.png", 20 + number)
    video(folder / "clip.mp4")
    assert codes(folder) == [20, 21, 22]
    assert open_source(folder).notes == ["left out, next to the images: clip.mp4"]


def test_folders_that_are_no_video_say_what_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "frames").mkdir(parents=True)
    with pytest.raises(InputError, match=r"in: no images and no video in it, only folders \(frames, ...\): name one"):
        open_source(folder)
    with pytest.raises(InputError, match="frames: a folder without images"):
        open_source(folder / "frames")
    video(folder / "a.mp4")
    video(folder / "b.mkv")
    with pytest.raises(InputError, match="in: a folder of 2 videos: name one of them, or use vidseg batch"):
        open_source(folder)
