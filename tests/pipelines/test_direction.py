"""Prompts followed towards the beginning of a video: from their frames back to the first, and both ways."""

from __future__ import annotations

import errno
import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from media import break_middle, write_video
from toys import BoxesEverywhere, KeepMasks, tiny_sam
from vidseg import read_run, segment_video
from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import decode, encode
from vidseg.scratch import ScratchStack
from vidseg.types import Frame, Prompt, State, Tracks
from vidseg.video import open_source
from vidseg.video.random_access import RandomAccess
from vidseg_pipelines import build, object_finder, run_output
from vidseg_pipelines.following import merged

COUNT, HEIGHT, WIDTH, SIDE = 14, 48, 64, 12
RED, BLUE = 0, 2
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def place(channel: int, index: int) -> tuple[slice, slice]:
    """Where the square of a colour is: red goes right, blue goes left."""
    x = 4 + 3 * index if channel == RED else WIDTH - SIDE - 4 - 3 * index
    y = 4 if channel == RED else 28
    return slice(y, y + SIDE), slice(x, x + SIDE)


def box(channel: int, index: int) -> str:
    rows, columns = place(channel, index)
    return f"{columns.start},{rows.start},{columns.stop},{rows.stop}"


def truth(channel: int, index: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[place(channel, index)] = True
    return mask


class Colours(KeepMasks):
    """Follows the squares: an object is where its colour is. It knows only objects of which it was told."""

    seen: list[int] = []
    broken: int | None = None
    lives = 0

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        type(self).lives += 1
        if self.lives == self.broken:
            raise RuntimeError("killed")
        self.seen.append(frame.index)
        for prompt in prompts:
            assert prompt.mask is not None
            self.masks[prompt.object_id] = prompt.mask
        rgb = frame.rgb.astype(np.int64)
        for object_id in self.masks:
            channel = RED if object_id == 1 else BLUE
            self.masks[object_id] = rgb[..., channel] - rgb[..., RED + BLUE - channel] > 60
        return super().step(frame)

    def load_state_dict(self, state: State) -> None:
        self.steps = int(state["steps"])
        self.masks = {int(k[5:]): v.numpy().copy() for k, v in state.items() if isinstance(v, torch.Tensor)}


@pytest.fixture(autouse=True)
def toy_models(monkeypatch: pytest.MonkeyPatch) -> None:
    sam = tiny_sam()
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: sam)
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: Colours())
    monkeypatch.setattr(Colours, "seen", [])
    monkeypatch.setattr(Colours, "lives", 0)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    pictures = []
    for index in range(COUNT):
        rgb = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        for channel in (RED, BLUE):
            rgb[(*place(channel, index), channel)] = 230
        pictures.append(rgb)
    return write_video(tmp_path / "clip.mp4", pictures)


REST = ("--refine", "none", "--batch", "2", "--save", "davis,mots,overlay,report")


def given(channel: int, index: int) -> tuple[str, str]:
    return "--box", f"{1 if channel == RED else 2}@{index}:{box(channel, index)}"


def journal(folder: Path) -> bytes:
    return (folder / "masks.jsonl").read_bytes()


def overlap(masks: FrameMasks, object_id: int) -> float:
    """IoU with the square of the object."""
    mine = decode(masks.rles[masks.ids.index(object_id)])
    square = truth(RED if object_id == 1 else BLUE, masks.frame_index)
    return float((mine & square).sum() / (mine | square).sum())


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_bytes())  # type: ignore[no-any-return]


def test_an_object_prompted_late_is_on_every_frame(vidseg: Callable[..., str], tmp_path: Path) -> None:
    vidseg("out", *given(RED, 8), "--label", "1=square", *REST, "--direction", "both")
    results = list(read_run(tmp_path / "out"))
    assert [(m.frame_index, m.ids, m.labels) for m in results] == [(i, (1,), ("square",)) for i in range(COUNT)]
    assert min(overlap(masks, 1) for masks in results if masks.frame_index != 8) > 0.7
    assert all(masks.signals[0] is not None for masks in results)
    assert len(list((tmp_path / "out" / "davis").glob("*.png"))) == COUNT
    assert len(list(open_source(tmp_path / "out" / "overlay.mp4"))) == COUNT
    assert len((tmp_path / "out" / "mots.txt").read_text().splitlines()) == COUNT
    done = manifest(tmp_path / "out")
    assert (done["status"], done["frames"], done["objects"], done["notes"]) == ("done", COUNT, [1], [])
    assert not list((tmp_path / "out").glob("*.part")) and not (tmp_path / "out" / "snapshot.safetensors").exists()


def test_the_forward_results_stay_as_they_are(vidseg: Callable[..., str], tmp_path: Path) -> None:
    prompts = (*given(RED, 8), *given(BLUE, 3))
    vidseg("both", *prompts, *REST, "--direction", "both")
    vidseg("forward", *prompts, *REST)
    both, forward = (list(read_run(tmp_path / name)) for name in ("both", "forward"))
    assert [m.ids for m in forward] == [()] * 3 + [(2,)] * 5 + [(1, 2)] * 6
    assert [m.ids for m in both] == [(1, 2)] * COUNT
    assert journal(tmp_path / "both").splitlines()[8:] == journal(tmp_path / "forward").splitlines()[8:]
    for before, after in zip(forward, both, strict=True):
        for object_id, rle in zip(before.ids, before.rles, strict=True):
            assert after.rles[after.ids.index(object_id)] == rle
    assert min(overlap(m, i) for m in both for i in m.ids if (i, m.frame_index) not in ((1, 8), (2, 3))) > 0.7


def test_backward_ends_at_the_last_prompt(vidseg: Callable[..., str], tmp_path: Path) -> None:
    vidseg("out", *given(RED, 8), *given(BLUE, 3), *REST, "--direction", "backward", "--frames", "1:")
    assert [(m.frame_index, m.ids) for m in read_run(tmp_path / "out")] == [(i, (1, 2)) for i in range(1, 9)]
    assert set(Colours.seen[:-8]) == {*range(1, 9)}  # forward to the prompt
    assert Colours.seen[-8:] == [*range(8)]  # then back, in growing numbers
    assert len(list(open_source(tmp_path / "out" / "overlay.mp4"))) == 8
    assert len(list((tmp_path / "out" / "davis").glob("*.png"))) == 8


@pytest.mark.parametrize("broken", [5, 10, COUNT + 2, COUNT + 7])  # forward, forward, and on the way back
def test_a_run_that_was_cut_off_ends_with_the_same_bytes(
    vidseg: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    settings = (*given(RED, 8), *given(BLUE, 3), *REST, "--direction", "both", "--snapshot-every", "4")
    vidseg("whole", *settings)
    forward = [m.ids for m in read_run(tmp_path / "whole")]
    monkeypatch.setattr(Colours, "broken", broken)
    monkeypatch.setattr(Colours, "lives", 0)
    vidseg("out", *settings, code=1)
    assert manifest(tmp_path / "out")["status"] == "failed"
    monkeypatch.setattr(Colours, "broken", None)
    monkeypatch.setattr(Colours, "seen", [])
    vidseg("out", "--resume", clip=None)
    if broken > COUNT:
        assert Colours.seen == list(range(9))  # nothing was computed forward a second time
    assert journal(tmp_path / "out") == journal(tmp_path / "whole")
    assert forward == [(1, 2)] * COUNT
    for name in ("mots.txt", *(f"davis/{index:05d}.png" for index in range(COUNT))):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_cut_off_while_its_outputs_are_made_ends_with_the_same_bytes(
    vidseg: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*given(RED, 8), *REST, "--direction", "both")
    vidseg("whole", *settings)
    with monkeypatch.context() as patch:

        def killed(*args: Any) -> Iterator[None]:
            raise KeyboardInterrupt

        patch.setattr(run_output._RunOutputs, "drawn", killed)
        vidseg("out", *settings, code=130)
    assert journal(tmp_path / "out") == journal(tmp_path / "whole")
    vidseg("out", "--resume", clip=None)
    assert journal(tmp_path / "out") == journal(tmp_path / "whole")
    assert len(list((tmp_path / "out" / "davis").glob("*.png"))) == COUNT


def test_a_corrected_run_goes_back_again(vidseg: Callable[..., str], tmp_path: Path) -> None:
    vidseg("out", *given(RED, 8), *REST, "--direction", "both")
    vidseg("out", "--continue", *given(BLUE, 10), *given(RED, 5), clip=None)
    vidseg("once", *given(RED, 8), *given(RED, 5), *given(BLUE, 10), *REST, "--direction", "both")
    assert journal(tmp_path / "out") == journal(tmp_path / "once")
    assert [m.ids for m in read_run(tmp_path / "out")] == [(1, 2)] * COUNT
    Colours.seen.clear()
    vidseg("out", "--continue", "--label", "1=red", clip=None)
    assert Colours.seen == []
    assert [m.labels[0] for m in read_run(tmp_path / "out")] == ["red"] * COUNT
    assert len(list(open_source(tmp_path / "out" / "overlay.mp4"))) == COUNT


def result(index: int, masks: dict[int, Mask]) -> FrameMasks:
    n = len(masks)
    rles = tuple(encode(mask) for mask in masks.values())
    boxes, scores = np.zeros((n, 4), np.float32), np.full(n, 0.5, np.float32)
    return FrameMasks(index, index, 0.0, tuple(masks), boxes, scores, (None,) * n, rles, hw=(4, 6))


def test_a_pixel_of_a_forward_mask_stays_with_it() -> None:
    mine, all_pixels = np.zeros((4, 6), np.bool_), np.ones((4, 6), np.bool_)
    mine[:, :3] = True
    forward = result(2, {2: mine})
    found = merged(forward, result(2, {1: all_pixels, 2: all_pixels}), ())
    assert found.ids == (1, 2)
    assert np.array_equal(decode(found.rles[0]), ~mine) and np.array_equal(decode(found.rles[1]), mine)
    assert found.boxes[0].tolist() == [3, 0, 6, 4]
    assert merged(found, result(2, {1: mine}), {1}).ids == (2,)  # what an earlier pass found is replaced
    assert merged(found, None, {1}).ids == (2,)
    assert merged(forward, None, {1}) is forward
    assert merged(result(5, {1: mine}), result(5, {1: all_pixels}), ()).rles == (encode(mine),)


def test_objects_that_are_found_are_followed_back_too(
    vidseg: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def discover(*args: Any, image: Any, **how: Any) -> list[Mask]:
        """The red square, when it is on the right: not yet on frame 0, where it is looked for first."""
        red = image[..., RED].astype(np.int64) - image[..., BLUE] > 60
        return [red] if red[:, 40:].any() else []

    monkeypatch.setattr(object_finder, "discover_objects", discover)
    vidseg("out", *REST, "--direction", "both")
    results = list(read_run(tmp_path / "out"))
    assert [m.ids for m in results] == [(1,)] * COUNT
    assert min(overlap(masks, 1) for masks in results) > 0.7
    assert [bool(m.signals[0] and m.signals[0].backward) for m in results] == [i < 10 for i in range(COUNT)]
    assert manifest(tmp_path / "out")["notes"] == []
    before = [m.rles[0] for m in results]
    vidseg("out", "--continue", "--box", f"12:{box(BLUE, 12)}", clip=None)
    results = list(read_run(tmp_path / "out"))
    assert [m.ids for m in results] == [(1, 2)] * COUNT
    assert [m.rles[0] for m in results] == before  # where it was found is known still, and it is followed back again
    assert overlap(results[0], 2) > 0.7


def test_few_frames_are_in_memory_on_the_way_back_and_none_is_read_twice(
    vidseg: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, alive = 0, list[tuple[int, weakref.ref[Any]]]()

    def counted(frame: Frame) -> Frame:
        nonlocal most
        alive.append((frame.index, weakref.ref(frame.rgb)))
        most = max(most, len({id(rgb) for _, ref in alive if (rgb := ref()) is not None}))
        return frame

    class Counted(RandomAccess):
        def backward(self, *args: Any, **how: Any) -> Iterator[Frame]:
            yield from map(counted, super().backward(*args, **how))

        def read(self, index: int) -> Frame:
            return counted(super().read(index))

    monkeypatch.setattr(run_output, "RandomAccess", Counted)
    vidseg("out", *given(RED, 12), *REST, "--direction", "both")
    assert [m.ids for m in read_run(tmp_path / "out")] == [(1,)] * COUNT
    assert [index for index, _ in alive] == [*range(12, -1, -1), *range(COUNT)]  # back, and to draw the outputs
    assert 1 < most <= 4
    alive.clear()
    vidseg("bare", *given(RED, 12), *REST, "--save", "none", "--direction", "both")
    assert [index for index, _ in alive] == [*range(12, -1, -1)]  # nothing is drawn


def test_a_disk_that_fills_up_on_the_way_back_loses_nothing(
    vidseg: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*given(RED, 8), *REST)
    vidseg("whole", *settings, "--direction", "both")
    vidseg("forward", *settings)
    with monkeypatch.context() as patch:
        push, room = ScratchStack.push, iter(range(5))

        def full(self: ScratchStack, *parts: Any) -> None:
            if next(room, None) is None:
                raise self._failure(OSError(errno.ENOSPC, "No space left on device"))
            push(self, *parts)

        patch.setattr(ScratchStack, "push", full)
        error = vidseg("out", *settings, "--direction", "both", code=1)
    told = [line for line in error.splitlines() if line.startswith("vidseg: ")]
    assert len(told) == 1 and f"{tmp_path / 'out'}: cannot write: the disk is full" in told[0]
    assert journal(tmp_path / "out") == journal(tmp_path / "forward")
    assert not list((tmp_path / "out").glob("*.part"))
    Colours.seen.clear()
    vidseg("out", "--resume", clip=None)
    assert Colours.seen == list(range(9))  # only back
    assert journal(tmp_path / "out") == journal(tmp_path / "whole")


def test_an_image_that_cannot_be_read_is_passed_over_both_ways(
    vidseg: Callable[..., str], tmp_path: Path, video: Path
) -> None:
    (tmp_path / "images").mkdir()
    for frame in open_source(video):
        Image.fromarray(frame.rgb).save(tmp_path / "images" / f"{frame.index:02d}.png")
    broken = tmp_path / "images" / "03.png"
    broken.write_bytes(broken.read_bytes()[:60])
    vidseg("out", *given(RED, 8), *REST, "--direction", "both", clip=str(tmp_path / "images"), code=5)
    assert [(m.frame_index, m.ids) for m in read_run(tmp_path / "out")] == [(i, (1,)) for i in range(COUNT) if i != 3]


def test_the_way_back_through_a_damaged_video_sees_the_frames_of_the_way_there(
    vidseg: Callable[..., str], tmp_path: Path
) -> None:
    pictures = np.full((40, HEIGHT, WIDTH, 3), 40, np.uint8)
    for index, rgb in enumerate(pictures):
        rgb[4 : 4 + SIDE, 4 + index : 4 + index + SIDE, RED] = 230
    broken = break_middle(write_video(tmp_path / "broken.mp4", list(pictures), options={"g": "5", "bf": "0"}))
    frames = [frame.rgb.astype(np.int64) for frame in open_source(broken)]
    last = len(frames) - 1
    assert last < 37
    vidseg("out", "--box", f"1@{last}:43,4,55,16", *REST, "--direction", "both", code=5, clip=str(broken))
    results = list(read_run(tmp_path / "out"))
    assert len(results) == len(frames)
    for masks, rgb in zip(results[:last], frames[:last], strict=True):
        assert masks.ids == (1,)
        assert np.array_equal(decode(masks.rles[0]), rgb[..., RED] - rgb[..., BLUE] > 60), masks.frame_index


def test_what_cannot_go_back_is_one_line(
    vidseg: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = vidseg("out", *REST, "--direction", "backward", code=2)
    assert error == (
        "vidseg: --direction backward ends at the last prompt, and there is none: give --box, --point or --mask;"
        " --direction both follows objects back that are found automatically\n"
    )
    error = vidseg("out", *given(RED, 8), "--direction", "both", "--deinterlace", code=2)
    assert error == "vidseg: --direction both and --deinterlace cannot be combined\n"
    error = vidseg("out", *given(RED, 8), "--direction", "both", clip="rtsp://camera.local/x", code=2)
    assert error.count("\n") == 1 and "cannot be read backward, only files and folders can: record it first" in error
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: BoxesEverywhere(1))
    error = vidseg("out", "--direction", "both", code=2)
    assert error.count("\n") == 1 and "--direction both: --tracker xmem cannot be started from the mask" in error
    assert not (tmp_path / "out").exists()


def test_where_there_is_nothing_to_go_back_to_a_note_says_so(vidseg: Callable[..., str], tmp_path: Path) -> None:
    vidseg("out", *given(RED, 0), *REST, "--direction", "both")
    vidseg("forward", *given(RED, 0), *REST)
    assert journal(tmp_path / "out") == journal(tmp_path / "forward")
    note = "--direction both: no object appears after frame 0, so there was nothing to go back to"
    assert manifest(tmp_path / "out")["notes"] == [note]


def test_the_direction_is_a_setting_of_python_and_of_the_result(video: Path, tmp_path: Path) -> None:
    mask = truth(RED, 8)
    settings: dict[str, Any] = {"prompts": Prompt(8, 1, mask=mask), "refine": "none", "save": "none"}
    segment_video(video, tmp_path / "out", direction="both", **settings)
    assert [m.ids for m in read_run(tmp_path / "out")] == [(1,)] * COUNT
    with pytest.raises(UsageError, match=r"config\.direction: 'both' -> 'forward'"):
        segment_video(video, tmp_path / "out", resume=True, **settings)
