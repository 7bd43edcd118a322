"""Going on from a mistake: what is said later gives what would have been computed had it been said at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from media import write_video
from toys import DriftMasks, KeepMasks, frames, tiny_sam
from vidseg import read_run, segment_video
from vidseg.errors import UsageError
from vidseg.masks.rle import decode
from vidseg.outputs import read_journal
from vidseg.types import Frame, Prompt, Tracks
from vidseg.video import open_source
from vidseg_pipelines import build, object_finder
from vidseg_pipelines.cli import main

COUNT, HEIGHT, WIDTH = 14, 48, 64
BOX, CLICK, NEW = "5,5,30,25", "1@9:12,12/-40,40", "6:34,28,60,44"


class Steps(DriftMasks):
    """Notes which frames it computes."""

    seen: list[int] = []
    broken: int | None = None

    def step(self, frame: Frame, prompts: Any = ()) -> list[Tracks]:
        if frame.index == self.broken:
            raise RuntimeError("killed")
        self.seen.append(frame.index)
        return super().step(frame, prompts)


@pytest.fixture(autouse=True)
def toy_models(monkeypatch: pytest.MonkeyPatch) -> None:
    sam = tiny_sam()
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: sam)
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: Steps())
    monkeypatch.setattr(Steps, "seen", [])


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", [frame.rgb for frame in frames(COUNT, HEIGHT, WIDTH)])


REST = ("--refine", "none", "--batch", "2", "--save", "davis,ytvis,mots,overlay,report")
FIRST, AT_ONCE = ("--box", BOX, *REST), ("--box", f"1@{BOX}", *REST)


def contents(folder: Path) -> dict[str, bytes]:
    """All files that promise their bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "overlay.mp4", "report.html") and "states" not in path.parts
    }


def lines(folder: Path) -> list[bytes]:
    return (folder / "masks.jsonl").read_bytes().splitlines()


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_bytes())  # type: ignore[no-any-return]


def states(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / "states").glob("*"))


def test_a_corrected_run_is_the_run_of_all_prompts_at_once(vidseg: Callable[..., str], tmp_path: Path) -> None:
    vidseg("out", *FIRST)
    before = lines(tmp_path / "out")
    vidseg("out", "--continue", "--point", CLICK, clip=None)
    assert lines(tmp_path / "out")[:9] == before[:9] and lines(tmp_path / "out")[9:] != before[9:]
    vidseg("out", "--continue", "--box", NEW, "--remove", "1@12", clip=None)
    vidseg("once", *AT_ONCE, "--point", CLICK, "--box", f"2@{NEW}", "--remove", "1@12")
    assert contents(tmp_path / "out") == contents(tmp_path / "once")
    assert [masks.ids for masks in read_run(tmp_path / "out")] == [(1,)] * 6 + [(1, 2)] * 6 + [(2,)] * 2
    assert len(list(open_source(tmp_path / "out" / "overlay.mp4"))) == COUNT
    done = manifest(tmp_path / "out")
    said = {name: done["config"][name] for name in ("box", "point", "remove")}
    assert said == {"box": [f"1@0:{BOX}", f"2@{NEW}"], "point": [CLICK], "remove": ["1@12"]}
    assert (done["status"], done["frames"], done["objects"]) == ("done", COUNT, [1, 2])
    assert "recompute_from" not in done


def test_a_correction_starts_from_the_last_kept_state_before_it(vidseg: Callable[..., str], tmp_path: Path) -> None:
    vidseg("out", *FIRST, "--keep-states", "4")
    assert states(tmp_path / "out") == [4, 8, 12]
    Steps.seen.clear()
    vidseg("out", "--continue", "--point", CLICK)
    assert min(Steps.seen) == 8
    assert states(tmp_path / "out") == [4, 8, 12]  # the last is of the corrected run
    vidseg("once", *AT_ONCE, "--point", CLICK)
    assert contents(tmp_path / "out") == contents(tmp_path / "once")
    Steps.seen.clear()
    vidseg("out", "--continue", "--point", "1@13:20,20")
    assert min(Steps.seen) == 12
    vidseg("once", *AT_ONCE, "--point", CLICK, "--point", "1@13:20,20", "--overwrite")
    assert contents(tmp_path / "out") == contents(tmp_path / "once")
    vidseg("out", *FIRST, "--overwrite")
    assert not (tmp_path / "out" / "states").exists()


def test_states_after_a_correction_that_was_cut_off_are_gone(
    vidseg: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vidseg("out", *FIRST, "--keep-states", "2")
    monkeypatch.setattr(Steps, "broken", 9)
    vidseg("out", "--continue", "--point", "1@5:12,12", code=1)
    assert states(tmp_path / "out") == [2, 4, 6, 8]
    assert [masks.frame_index for masks in read_run(tmp_path / "out")][:5] == list(range(5))
    monkeypatch.setattr(Steps, "broken", None)
    Steps.seen.clear()
    vidseg("out", "--resume", clip=None)
    assert min(Steps.seen) == 8
    vidseg("once", *AT_ONCE, "--point", "1@5:12,12")
    assert contents(tmp_path / "out") == contents(tmp_path / "once")


def test_a_damaged_state_is_skipped_with_a_warning(vidseg: Callable[..., str], tmp_path: Path) -> None:
    vidseg("out", *FIRST, "--keep-states", "4")
    (tmp_path / "out" / "states" / "00000008.safetensors").write_bytes(b"not a state")
    Steps.seen.clear()
    text = vidseg("out", "--continue", "--point", CLICK)
    assert "warning: states/00000008.safetensors was not used: it is damaged" in text
    assert min(Steps.seen) == 4
    vidseg("once", *AT_ONCE, "--point", CLICK)
    assert contents(tmp_path / "out") == contents(tmp_path / "once")


@pytest.mark.parametrize("prompt", ["1@11:20,20", "1@5:20,20"])  # behind the journal's end, and inside it
def test_an_interrupted_run_is_corrected(
    vidseg: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    monkeypatch.setattr(Steps, "broken", 9)
    vidseg("out", *FIRST, "--snapshot-every", "4", code=1)
    monkeypatch.setattr(Steps, "broken", None)
    vidseg("out", "--continue", "--point", prompt)
    vidseg("once", *AT_ONCE, "--point", prompt)
    assert contents(tmp_path / "out") == contents(tmp_path / "once")


def test_the_same_command_again_goes_on_with_what_was_cut_off(
    vidseg: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vidseg("out", *FIRST)
    monkeypatch.setattr(Steps, "broken", 11)
    vidseg("out", "--continue", "--box", NEW, code=1)
    assert lines(tmp_path / "out")[:6]
    monkeypatch.setattr(Steps, "broken", None)
    vidseg("out", "--continue", "--box", NEW)
    assert manifest(tmp_path / "out")["config"]["box"] == [f"1@0:{BOX}", f"2@{NEW}"]
    vidseg("once", *AT_ONCE, "--box", NEW)
    assert contents(tmp_path / "out") == contents(tmp_path / "once")


def test_found_objects_keep_their_ids_when_they_are_corrected(
    vidseg: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = np.zeros((2, HEIGHT, WIDTH), np.bool_)
    masks[0, 5:20, 5:20], masks[1, 25:40, 30:50] = True, True
    monkeypatch.setattr(object_finder, "discover_objects", lambda *a, **k: list(masks))
    vidseg("out", "--refine", "none")
    before = lines(tmp_path / "out")
    vidseg("out", "--continue", "--point", "2@7:-40,30", "--remove", "1@10", "--box", "8:1,40,20,47", clip=None)
    assert lines(tmp_path / "out")[:7] == before[:7]
    assert [m.ids for m in read_run(tmp_path / "out")] == [(1, 2)] * 8 + [(1, 2, 3)] * 2 + [(2, 3)] * 4
    assert "there are: 1, 2" in vidseg("out", "--continue", "--remove", "9@5", clip=None, code=2)


def test_a_name_is_given_later_without_computing_anything(vidseg: Callable[..., str], tmp_path: Path) -> None:
    vidseg("out", *FIRST)
    Steps.seen.clear()
    vidseg("out", "--continue", "--label", "1=bear", clip=None)
    assert Steps.seen == []
    vidseg("once", *AT_ONCE, "--label", "1=bear")
    assert contents(tmp_path / "out") == contents(tmp_path / "once")
    vidseg("out", "--continue", "--label", "1=dog", "--point", CLICK, clip=None)
    assert {m.labels for m in read_run(tmp_path / "out")} == {("dog",)}


def test_every_export_in_the_folder_is_made_again(vidseg: Callable[..., str], tmp_path: Path) -> None:
    vidseg("out", *FIRST)
    assert main(["export", str(tmp_path / "out"), "--to", "coco,labelme"]) == 0
    vidseg("out", "--continue", "--point", CLICK, "--save", "cutout", "--overlay-style", "fill=0")
    vidseg("once", *AT_ONCE[:-1], "davis,ytvis,mots,coco,labelme,cutout,overlay,report", "--point", CLICK)
    assert contents(tmp_path / "out") == contents(tmp_path / "once")
    assert len(list((tmp_path / "out" / "cutout").glob("*.png"))) == COUNT


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--refine", "box"], "--continue: --refine box: the run in "),
        (["--refine", "auto"], "--continue: --refine auto: the run in "),  # the default, said all the same
        (["--frames", "0:5"], "was made with :"),
        (["--resume"], "--continue and --resume cannot be combined"),
        (["--remove", "3@5"], "--remove 3@5: no object 3 before this frame; there are: 1"),
        (["--remove", "1"], "--remove 1: ID@FRAME expected, e.g. 2@120"),
        (["--remove", "1@5"], "its id is never used again"),
        (["--point", "1@99:3,3"], "a prompt is on frame 99, but clip has 14 frames, 0 to 13"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(
    vidseg: Callable[..., str], tmp_path: Path, args: list[str], text: str
) -> None:
    vidseg("out", *FIRST)
    before = contents(tmp_path / "out"), (tmp_path / "out" / "run.json").read_bytes()
    error = vidseg("out", "--continue", "--point", CLICK, *args, code=2)
    assert text in error and error.count("\n") == 1
    assert (contents(tmp_path / "out"), (tmp_path / "out" / "run.json").read_bytes()) == before


def test_another_video_or_none_is_refused(vidseg: Callable[..., str], video: Path, tmp_path: Path) -> None:
    assert "no; give the output folder of a run" in vidseg("no", "--continue", code=2)
    assert not (tmp_path / "no").exists()
    (tmp_path / "empty").mkdir()
    assert "holds no run (no run.json); give the output folder of a run" in vidseg("empty", "--continue", code=2)
    vidseg("out", *FIRST)
    other = write_video(tmp_path / "other.mp4", [frame.rgb[::-1] for frame in frames(COUNT, HEIGHT, WIDTH)])
    error = vidseg("out", "--continue", "--point", CLICK, clip=str(other), code=2)
    assert f"{other} is another video: the run in {tmp_path / 'out'} was made from {video}" in error
    moved = video.rename(tmp_path / "moved.mp4")
    assert "which is not there: give VIDEO" in vidseg("out", "--continue", "--point", CLICK, clip=None, code=2)
    vidseg("out", "--continue", "--point", CLICK, clip=str(moved))
    assert manifest(tmp_path / "out")["input"]["path"] == str(moved)


def test_the_folder_named_after_the_video_is_found(
    vidseg: Callable[..., str], video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    vidseg("runs/clip", *FIRST)
    assert main(["run", str(video), "--continue", "--point", CLICK]) == 0
    vidseg("once", *AT_ONCE, "--point", CLICK)
    assert contents(tmp_path / "runs" / "clip") == contents(tmp_path / "once")
    assert main(["run", "--continue", "--point", CLICK]) == 2


def test_a_prompt_that_shows_nothing_is_taken_back(
    vidseg: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vidseg("out", *FIRST)
    whole = contents(tmp_path / "out")
    step = Steps.step

    def refuse(self: Steps, frame: Frame, prompts: Any = ()) -> list[Tracks]:
        if frame.index == 11 and prompts:
            raise UsageError("object 1 on frame 11: there is nothing")
        return step(self, frame, prompts)

    monkeypatch.setattr(Steps, "step", refuse)
    assert "there is nothing" in vidseg("out", "--continue", "--point", CLICK, "--point", "1@11:3,3", code=2)
    assert manifest(tmp_path / "out")["config"]["point"] == []
    vidseg("out", "--resume", clip=None)
    assert contents(tmp_path / "out") == whole


def test_a_run_that_the_page_edited_goes_on_there(vidseg: Callable[..., str], tmp_path: Path) -> None:
    vidseg("out", *FIRST)
    run = tmp_path / "out" / "run.json"
    run.write_text(json.dumps({**manifest(tmp_path / "out"), "edited": True}))
    assert "was edited on the page: go on there with vidseg ui" in vidseg("out", "--continue", "--point", CLICK, code=2)


def test_python_continues_a_run_too(video: Path, tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[5:25, 5:30] = True
    first = Prompt(0, 1, mask=mask)
    settings: dict[str, Any] = {"refine": "none", "batch": 2, "save": ["davis"]}
    segment_video(video, tmp_path / "out", prompts=first, **settings)
    with pytest.raises(UsageError, match="object 1 on frame 0 was given as a Prompt object: give it again"):
        segment_video(output=tmp_path / "out", continue_=True, point="1@9:12,12")
    later = Prompt(5, 2, box=(30, 30, 50, 45))
    segment_video(
        output=tmp_path / "out",
        continue_=True,
        point="1@9:12,12",
        prompts=[first, later],
        remove={1: 12},
        refine="none",
    )
    segment_video(video, tmp_path / "once", point="1@9:12,12", prompts=[first, later], remove="1@12", **settings)
    assert contents(tmp_path / "out") == contents(tmp_path / "once")
    with pytest.raises(UsageError, match=r"remove 3: \{id: frame\} or texts ID@FRAME expected"):
        segment_video(output=tmp_path / "out", continue_=True, remove=3)  # type: ignore[arg-type]


def test_masks_of_files_are_prompts_of_a_correction(vidseg: Callable[..., str], tmp_path: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[30:45, 10:30] = 1
    image = Image.fromarray(labels, "P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(tmp_path / "drawn.png")
    vidseg("out", *FIRST)
    vidseg("out", "--continue", "--mask", f"8:{tmp_path / 'drawn.png'}", clip=None)
    masks = list(read_journal(tmp_path / "out" / "masks.jsonl"))[8]
    assert masks.ids == (1,) and np.array_equal(decode(masks.rles[0]), labels > 0)
    image.putpixel((0, 0), 1)
    image.save(tmp_path / "drawn.png")
    assert "drawn.png has changed since" in vidseg("out", "--continue", "--point", "1@9:12,12", clip=None, code=2)


def test_a_tracker_that_cannot_let_go_says_so(vidseg: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: KeepMasks())
    error = vidseg("out", *FIRST, "--remove", "1@5", code=2)
    assert error == "vidseg: --remove: the tracker, with these settings, cannot let go of an object\n"
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: Steps())
    text = vidseg("out", *FIRST, "--remove", "1@50", code=5)
    assert "--remove 1@50 was not used: the input gave no frame 50" in text
    assert "no object 2 before this frame; there are: 1" in vidseg("new", *FIRST, "--remove", "2@5", code=2)
