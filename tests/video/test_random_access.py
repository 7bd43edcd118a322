"""Frames in any order are those that reading from the start gives."""

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import golden_videos
from media import barcode_video, break_middle, read_barcode
from vidseg.errors import InputError
from vidseg.scratch import ScratchStack
from vidseg.types import Frame
from vidseg.video import open_source, random_access
from vidseg.video.random_access import RandomAccess
from vidseg.video.seeking import SeekingDecoder


def check(path: Path, **keywords: int) -> RandomAccess:
    expected: list[Frame] = list(open_source(path))
    access = RandomAccess(path, **keywords)
    for index in range(access.count):  # damage is noticed when its place is read
        with suppress(InputError):
            access.read(index)
    assert access.count == len(expected)
    order = list(range(len(expected)))
    random.Random(3).shuffle(order)
    for index in [*order, *reversed(range(len(expected)))]:
        frame = access.read(index)
        assert (frame.index, frame.pts, frame.time_s, frame.name) == (
            index,
            expected[index].pts,
            expected[index].time_s,
            expected[index].name,
        )
        assert np.array_equal(frame.rgb, expected[index].rgb), (path.name, index)
    return access


def test_every_frame_of_the_golden_videos_is_found_in_any_order(tmp_path: Path) -> None:
    for path in golden_videos.make(tmp_path):
        try:
            check(path, cache_bytes=1).close()
        except InputError:
            assert golden_videos.describe(path) == [f"{path.name} refused"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".webm", ".mpg"])
def test_any_frame_of_a_video_with_many_key_frames_is_found(tmp_path: Path, suffix: str) -> None:
    codec = {".webm": "libvpx", ".mpg": "mpeg2video", ".avi": "mpeg4"}.get(suffix, "libx264")
    options = {"g": "9"} if codec != "libx264" else {"g": "9", "bf": "3", "x264-params": "open-gop=1"}
    check(barcode_video(tmp_path / f"v{suffix}", 60, codec=codec, options=options), cache_bytes=1)


def test_frames_lost_in_the_middle_are_counted_out_when_they_are_read(tmp_path: Path) -> None:
    broken = break_middle(barcode_video(tmp_path / "v.mp4", 60, options={"g": "10", "bf": "0"}))
    count = check(broken).count
    lost = 60 - count
    assert lost > 3
    access = RandomAccess(broken)
    assert (access.count, read_barcode(access.read(55).rgb)) == (60, 55)
    for index in range(count):
        access.read(index)
    assert access.count == count
    assert read_barcode(access.read(55 - lost).rgb) == 55, "what was read before has another number"
    assert any(f"60 frames were listed, {count} can be decoded" in line for line in access.warnings)


def test_frames_lost_in_the_middle_are_counted_out_if_a_later_frame_is_known(tmp_path: Path) -> None:
    broken = break_middle(barcode_video(tmp_path / "v.mp4", 60, options={"g": "10", "bf": "0"}))
    *_, last = open_source(broken)
    access = RandomAccess(broken)
    access.check(0, access.times[0])
    assert access.count == 60
    access.check(last.index, last.pts)
    assert access.count == last.index + 1
    assert read_barcode(access.read(last.index).rgb) == 59


def test_a_sound_video_is_not_decoded_to_count_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(RandomAccess, "_recount")
    access = RandomAccess(barcode_video(tmp_path / "v.mp4", 30))
    assert [read_barcode(access.read(index).rgb) for index in (0, 4, 29, 3)] == [0, 4, 29, 3]


def test_a_jump_decodes_from_the_key_frame_before_it_and_not_from_the_start(tmp_path: Path) -> None:
    access = RandomAccess(barcode_video(tmp_path / "v.mp4", 60, options={"g": "10", "sc_threshold": "0"}))
    assert read_barcode(access.read(47).rgb) == 47
    assert min(access._cache) == 40


def test_another_reader_takes_over_the_list_and_reads_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = RandomAccess(barcode_video(tmp_path / "v.mp4", 60, options={"g": "10"}))
    access.read(30)
    with monkeypatch.context() as patch:
        patch.delattr(SeekingDecoder, "trusted")  # nothing is listed or checked again
        other = access.another()
    access.close()
    assert other.count == 60
    for index in (47, 3, 59):
        assert read_barcode(other.read(index).rgb) == index


def test_memory_is_bounded_and_holds_the_last_frames(tmp_path: Path) -> None:
    access = RandomAccess(barcode_video(tmp_path / "v.mp4", 40), cache_bytes=5 * 120 * 64 * 3)
    for index in range(40):
        access.read(index)
    assert sorted(access._cache) == [35, 36, 37, 38, 39]


def test_pictures_are_read_in_any_order(tmp_path: Path) -> None:
    import cv2

    for n in range(5):
        cv2.imwrite(str(tmp_path / f"f{n}.png"), np.full((40, 60, 3), 30 * n, np.uint8))
    access = check(tmp_path)
    other = access.another()
    assert access.read(2).name == "f2.png"
    access.close()
    assert other.read(2).name == "f2.png"
    with pytest.raises(InputError, match="no frame 5"):
        access.read(5)


def both_ways(path: Path, scratch: Path, **keywords: int) -> None:
    """Frames backward are those of reading from the start."""
    expected = list(open_source(path))
    access = RandomAccess(path, cache_bytes=0)
    with suppress(InputError):
        for index in range(access.count):  # damage is noticed when its place is read
            access.read(index)
    found = list(access.backward(access.count - 1, scratch=scratch, **keywords))
    assert [frame.index for frame in found] == [*reversed(range(len(expected)))]
    for frame, same in zip(reversed(found), expected, strict=True):
        assert (frame.pts, frame.time_s, frame.name) == (same.pts, same.time_s, same.name)
        assert np.array_equal(frame.rgb, same.rgb), (path.name, frame.index)
        assert frame.rgb.flags.writeable
    assert list(scratch.iterdir()) == []


def test_the_golden_videos_are_read_backward(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    for path in golden_videos.make(tmp_path):
        with suppress(InputError):
            both_ways(path, tmp_path / "scratch")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".webm", ".mpg"])
def test_any_container_is_read_backward(tmp_path: Path, suffix: str) -> None:
    codec = {".webm": "libvpx", ".mpg": "mpeg2video", ".avi": "mpeg4"}.get(suffix, "libx264")
    options = {"g": "9"} if codec != "libx264" else {"g": "9", "bf": "3", "x264-params": "open-gop=1"}
    path = barcode_video(tmp_path / f"v{suffix}", 40, codec=codec, options=options)
    (tmp_path / "scratch").mkdir()
    both_ways(path, tmp_path / "scratch")
    both_ways(path, tmp_path / "scratch", scratch_bytes=4 * 120 * 64 * 3)


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Timestamps of all frames that are decoded from now on."""
    seen: list[int] = []
    decode = SeekingDecoder._decoded

    def counted(self: SeekingDecoder) -> Iterator[Any]:
        for frame in decode(self):
            seen.append(self._place[frame.pts])
            yield frame

    monkeypatch.setattr(SeekingDecoder, "_decoded", counted)
    return seen


@pytest.mark.parametrize("group", [7, 40])
def test_every_frame_is_decoded_once_on_the_way_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    path = barcode_video(tmp_path / "v.mp4", 40, options={"g": str(group), "sc_threshold": "0", "bf": "2"})
    access = RandomAccess(path, cache_bytes=0)  # nothing is kept in memory
    seen = decoded(monkeypatch)
    assert [read_barcode(frame.rgb) for frame in access.backward(36, 5)] == [*range(36, 4, -1)]
    first = 0 if group == 40 else 5 // group * group
    assert sorted(seen) == list(range(first, 37))


def test_few_frames_wait_on_the_disk_where_a_group_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, frame = list[int](), 120 * 64 * 3

    class Watched(ScratchStack):
        def push(self, *parts: Any) -> None:
            super().push(*parts)
            sizes.append(self._end // frame)

    monkeypatch.setattr(random_access, "ScratchStack", Watched)
    access = RandomAccess(barcode_video(tmp_path / "v.mp4", 40, options={"g": "40", "sc_threshold": "0"}))
    back = access.backward(39, scratch_bytes=10 * frame)
    assert [read_barcode(frame.rgb) for frame in back] == [*range(39, -1, -1)]
    assert max(sizes) == 10 and len(sizes) == 40


def test_an_image_that_cannot_be_read_is_left_out_on_the_way_back(tmp_path: Path) -> None:
    import cv2

    for n in range(5):
        cv2.imwrite(str(tmp_path / f"f{n}.png"), np.full((40, 60, 3), 30 * n, np.uint8))
    broken = tmp_path / "f2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert [frame.name for frame in RandomAccess(tmp_path).backward(4, 1)] == ["f4.png", "f3.png", "f1.png"]
