"""The output folder of a run: one writer, never onto an input, nothing left by who could not start, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from media import write_video
from toys import KeepMasks, frames, tiny_sam
from vidseg.config import RunConfig
from vidseg.errors import InputError, UsageError, WeightsError
from vidseg.outputs import read_journal
from vidseg.outputs.layout import LOCK, SNAPSHOT
from vidseg.registry import build_tracker
from vidseg.runtime import Precision
from vidseg.sam.model import Sam
from vidseg.types import Frame, Prompt, Tracks
from vidseg_pipelines import build
from vidseg_pipelines.cli import main
from vidseg_pipelines.run import Loaders, run_video
from vidseg_pipelines.run_sinks import MAX_WARNINGS, bounded

COUNT, HEIGHT, WIDTH = 12, 48, 64
BOX = "5,5,30,25"


class Gate:
    """Runs whose tracker waits at frame 6 until the gate is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def tracker(self, config: RunConfig) -> KeepMasks:
        gate = self

        class Waiting(KeepMasks):
            def step(self, frame: Frame, prompts: tuple[Prompt, ...] = ()) -> list[Tracks]:  # type: ignore[override]
                if frame.index == 6:
                    gate.reached.set()
                    assert gate.opened.wait(60)
                return super().step(frame, prompts)

        return Waiting()


@pytest.fixture(autouse=True)
def toy_models(monkeypatch: pytest.MonkeyPatch) -> None:
    sam = tiny_sam()
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: sam)
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: KeepMasks())


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", [frame.rgb for frame in frames(COUNT, HEIGHT, WIDTH)])


@pytest.fixture
def config(video: Path, tmp_path: Path) -> RunConfig:
    saves = "davis,ytvis,overlay"
    return RunConfig(input=str(video), output=tmp_path / "out", box=(BOX,), save=saves, refine="none", snapshot_every=4)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def stop(config: RunConfig, monkeypatch: pytest.MonkeyPatch, at: int = 9) -> None:
    """Run until the tracker breaks down."""
    step = KeepMasks.step

    def breaking(self: KeepMasks, frame: Frame, prompts: tuple[Prompt, ...] = ()) -> list[Tracks]:
        if frame.index == at:
            raise RuntimeError("killed")
        return step(self, frame, prompts)

    with monkeypatch.context() as patch:
        patch.setattr(KeepMasks, "step", breaking)
        with pytest.raises(RuntimeError, match="killed"):
            run_video(config)


@contextmanager
def underway(config: RunConfig) -> Iterator[None]:
    """A run in another thread is at frame 6 meanwhile; it ends well."""
    gate, ended = Gate(), list[str]()
    loaders = Loaders(lambda config: tiny_sam(), gate.tracker)
    thread = threading.Thread(target=lambda: ended.append(run_video(config, loaders=loaders).status))
    thread.start()
    try:
        assert gate.reached.wait(60)
        assert config.output is not None
        for _ in range(6000):
            if (config.output / SNAPSHOT).exists():
                break  # all that was computed before frame 6 has been written
            time.sleep(0.01)
        yield
    finally:
        gate.opened.set()
        thread.join()
    assert ended == ["done"]


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_a_second_run_on_a_folder_that_is_being_written_is_refused(config: RunConfig, how: dict[str, bool]) -> None:
    assert config.output is not None
    with underway(config):
        before = contents(config.output)
        with pytest.raises(UsageError, match=r"out is in use by another run: wait for it, or choose another --output"):
            run_video(replace(config, **how))
        assert contents(config.output) == before
    assert [masks.frame_index for masks in read_journal(config.output / "masks.jsonl")] == list(range(COUNT))
    assert not (config.output / LOCK).exists()


def test_a_folder_is_claimed_before_the_models_are_loaded(config: RunConfig) -> None:
    def load(config: RunConfig) -> Sam:
        with pytest.raises(UsageError, match="in use by another run"):
            run_video(config, loaders=Loaders(load))
        return tiny_sam()

    assert run_video(config, loaders=Loaders(load, lambda config: KeepMasks())).status == "done"


def test_the_lock_of_a_killed_run_is_no_obstacle(config: RunConfig) -> None:
    assert config.output is not None
    config.output.mkdir()
    (config.output / LOCK).touch()
    assert run_video(config).status == "done"
    assert not (config.output / LOCK).exists()


def _overlay(out: Path) -> dict[str, object]:
    return {"input": str(out / "overlay.mp4")}


def _spelled_otherwise(out: Path) -> dict[str, object]:
    return {"input": os.path.relpath(out / "davis" / ".." / "overlay.mp4")}


def _through_a_link(out: Path) -> dict[str, object]:
    (out.parent / "link").symlink_to(out)
    return {"input": str(out.parent / "link" / "overlay.mp4")}


def _through_a_hard_link(out: Path) -> dict[str, object]:
    os.link(out / "overlay.mp4", out.parent / "copy.mp4")
    return {"input": str(out.parent / "copy.mp4")}


def _a_link_among_the_outputs(out: Path) -> dict[str, object]:
    (out / "overlay.mp4").rename(out.parent / "original.mp4")
    (out / "overlay.mp4").symlink_to(out.parent / "original.mp4")
    return {"input": str(out / "overlay.mp4")}


def _the_target_of_a_link(out: Path) -> dict[str, object]:
    return {"input": str(Path(str(_a_link_among_the_outputs(out)["input"])).resolve())}


def _mask(out: Path) -> dict[str, object]:
    return {"box": (), "mask": (str(out / "davis" / "00000.png"),)}


def _boxes(out: Path) -> dict[str, object]:
    return {"box": (), "tracker": "boxes", "boxes": out / "masks.jsonl"}


def _boxes_as_an_option(out: Path) -> dict[str, object]:
    return {"box": (), "tracker": "boxes", "tracker_options": {"file": str(out / "masks.jsonl")}}


def _stills(out: Path) -> dict[str, object]:
    return {"input": str(out / "davis")}


def _the_folder_of_the_overlay(out: Path) -> dict[str, object]:
    return {"input": str(out)}


def _pattern(out: Path) -> dict[str, object]:
    return {"input": str(out.parent / "o*" / "*" / "0000*.png")}


def _linked_stills(out: Path) -> dict[str, object]:
    (out.parent / "stills").mkdir()
    (out.parent / "stills" / "0.png").symlink_to(out / "davis" / "00000.png")
    return {"input": str(out.parent / "stills")}


@pytest.mark.parametrize(
    "use",
    [
        _overlay,
        _spelled_otherwise,
        _through_a_link,
        _through_a_hard_link,
        _a_link_among_the_outputs,
        _the_target_of_a_link,
        _mask,
        _boxes,
        _boxes_as_an_option,
        _stills,
        _the_folder_of_the_overlay,
        _pattern,
        _linked_stills,
    ],
)
def test_an_input_among_the_outputs_is_refused_and_kept(
    config: RunConfig, use: Callable[[Path], dict[str, object]]
) -> None:
    assert config.output is not None
    run_video(config)
    settings = use(config.output)
    before = contents(config.output)
    with pytest.raises(UsageError, match=r"is an input and would be overwritten by .*: choose another --output"):
        run_video(replace(config, overwrite=True, **settings))  # type: ignore[arg-type]
    assert contents(config.output) == before


def test_standard_input_from_an_output_is_refused(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.output is not None
    run_video(config)
    before, stdin = contents(config.output), os.dup(0)
    try:
        with (config.output / "overlay.mp4").open("rb") as file:
            os.dup2(file.fileno(), 0)
            monkeypatch.setattr(sys, "stdin", file)
            with pytest.raises(UsageError, match=r"^- is an input and would be overwritten by .*overlay\.mp4"):
                run_video(replace(config, input="-", overwrite=True))
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
    assert contents(config.output) == before


def test_an_input_beside_the_outputs_is_fine(config: RunConfig, video: Path) -> None:
    assert config.output is not None
    config.output.mkdir()
    inside = shutil.copy(video, config.output / "clip.mp4")
    assert run_video(replace(config, input=str(inside), overwrite=True)).status == "done"
    assert Path(inside).read_bytes() == video.read_bytes()


def test_a_folder_of_stills_may_hold_its_own_outputs(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stills = _stills_folder(tmp_path / "stills")
    config = replace(config, input=str(stills), output=stills, overwrite=True)
    stop(config, monkeypatch)
    (stills / ".DS_Store").touch()  # left by a system
    assert run_video(replace(config, overwrite=False, resume=True)).frames == COUNT  # what it wrote is no other input


def test_the_video_of_a_folder_is_what_a_resume_compares(
    config: RunConfig, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    inside = video.rename(folder / "overlay.mp4")  # called like something that a run writes
    config = replace(config, input=str(folder))
    stop(config, monkeypatch)
    (folder / "notes.txt").touch()
    stop(replace(config, resume=True), monkeypatch)
    inside.write_bytes(inside.read_bytes() + bytes(8))
    with pytest.raises(UsageError, match=r"made differently \(input\.bytes"):
        run_video(replace(config, resume=True))


@pytest.mark.parametrize("kind", ["pattern", "boxes of an option"])
def test_files_that_changed_are_noticed_however_they_are_named(
    config: RunConfig, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stills = _stills_folder(tmp_path / "stills")
    (stills / ".DS_Store").touch()
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("1,1,5,5,20,20,1,-1,-1,-1\n")
    config = replace(config, input=str(stills / "*.png"))
    if kind == "boxes of an option":
        config = replace(config, tracker="boxes", tracker_options={"file": str(boxes)}, box=(), refine="box")
    stop(config, monkeypatch)
    (stills / ".DS_Store").write_text("what a system leaves changes nothing")
    stop(replace(config, resume=True), monkeypatch)
    changed = stills / "00003.png" if kind == "pattern" else boxes
    changed.write_bytes(changed.read_bytes() + b"\n")
    with pytest.raises(UsageError, match="the run in the output folder was made differently"):
        run_video(replace(config, resume=True))


def _stills_folder(folder: Path, damaged: tuple[int, ...] = ()) -> Path:
    folder.mkdir()
    for frame in frames(COUNT, HEIGHT, WIDTH):
        path = folder / f"{frame.index:05d}.png"
        Image.fromarray(frame.rgb).save(path)
        if frame.index in damaged:
            path.write_bytes(path.read_bytes()[:700])
    return folder


def test_a_run_that_cannot_start_leaves_nothing_behind(config: RunConfig, tmp_path: Path) -> None:
    def missing(config: RunConfig) -> Sam:
        raise WeightsError("missing")

    deep = replace(config, output=tmp_path / "runs" / "today" / "clip")
    with pytest.raises(WeightsError):
        run_video(deep, loaders=Loaders(missing))
    assert not (tmp_path / "runs").exists()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    with pytest.raises(WeightsError):
        run_video(replace(config, output=theirs), loaders=Loaders(missing))
    assert list(theirs.iterdir()) == []  # a folder that somebody else made stays


def test_boxes_that_do_not_fit_leave_no_folder_that_blocks_the_next_run(config: RunConfig, tmp_path: Path) -> None:
    def run(last: int) -> str:
        boxes = tmp_path / "boxes.txt"
        boxes.write_text("".join(f"{n},1,5,5,20,20,1,-1,-1,-1\n" for n in (1, last)))
        wanted = replace(config, tracker="boxes", boxes=boxes, box=())
        loaders = Loaders(
            lambda config: tiny_sam(), lambda config: build_tracker("boxes", config.all_tracker_options())
        )
        return run_video(replace(wanted, refine="box"), loaders=loaders).status

    with pytest.raises(InputError):
        run(COUNT + 18)
    assert run(COUNT) == "done"


@pytest.mark.parametrize("input_", ["damaged", "missing weights"])
def test_an_overwrite_that_cannot_start_keeps_what_was_there(config: RunConfig, tmp_path: Path, input_: str) -> None:
    assert config.output is not None
    run_video(config)
    before = contents(config.output)

    def missing(config: RunConfig) -> Sam:
        raise WeightsError("missing")

    again = replace(config, overwrite=True)
    if input_ == "damaged":
        again = replace(again, input=str(_stills_folder(tmp_path / "stills", tuple(range(COUNT)))))
        with pytest.raises(InputError):
            run_video(again)
    else:
        with pytest.raises(WeightsError):
            run_video(again, loaders=Loaders(missing))
    assert contents(config.output) == before


def test_overwrite_removes_what_runs_write_and_nothing_else(config: RunConfig) -> None:
    assert config.output is not None
    kept = ["davis/JPEGImages/1.jpg", "davis/notes.txt", "labelme/00000.json", "film.part", "ytvis.json/mine"]
    for name in kept:
        path = config.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    run_video(replace(config, save="none", overwrite=True))
    assert set(contents(config.output)) == {*kept, "masks.jsonl", "run.json"}


def test_a_resume_without_the_journal_is_refused_and_removes_nothing(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.output is not None
    stop(config, monkeypatch)
    journal = config.output / "masks.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for rest in (None, lines[:3]):
        journal.unlink()
        if rest is not None:
            journal.write_bytes(b"".join(rest))
        before = contents(config.output)
        with pytest.raises(UsageError, match=r"masks\.jsonl lacks frame 7; use --overwrite"):
            run_video(replace(config, resume=True))
        assert contents(config.output) == before
        journal.write_bytes(b"".join(lines))
    assert run_video(replace(config, resume=True)).status == "done"


def test_a_resume_that_fails_at_its_first_frame_keeps_what_was_done(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.output is not None
    stop(config, monkeypatch, at=5)  # after four frames and their snapshot
    with pytest.raises(WeightsError):
        run_video(replace(config, resume=True), loaders=Loaders(lambda config: _raise(WeightsError("missing"))))
    (config.output / "snapshot.safetensors").unlink()
    stop(replace(config, resume=True), monkeypatch, at=0)
    assert (config.output / "run.json").exists()
    assert run_video(replace(config, resume=True)).status == "done"


def _raise(error: Exception) -> Sam:
    raise error


def _no_metadata(path: Path) -> None:
    save_file({"a": torch.zeros(1)}, path)


def _no_snapshot(path: Path) -> None:
    path.write_bytes(b"\xff" * 40)


def _changed(**metadata: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with safe_open(path, "pt") as file:
            known, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        save_file(state, path, {**known, **metadata})

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_metadata, "it is damaged"),
        (_no_snapshot, "it is damaged"),
        (_changed(scalars="[1, 2]"), "it is damaged"),
        (_changed(scalars="{}"), "it is damaged"),
        (_changed(next_frame="soon"), "it is damaged"),
        (_changed(version="0.0.1"), "it was made by vidseg 0.0.1, this is "),
        (_changed(run="another"), "it is of another run"),
    ],
)
def test_a_snapshot_that_cannot_be_used_is_one_line(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None], message: str
) -> None:
    assert config.output is not None
    stop(config, monkeypatch)
    snapshot = config.output / "snapshot.safetensors"
    damage(snapshot)
    before = contents(config.output)
    with pytest.raises(UsageError, match=rf"snapshot\.safetensors: {message}.*; delete it to restart"):
        run_video(replace(config, resume=True))
    assert contents(config.output) == before
    snapshot.unlink()
    assert run_video(replace(config, resume=True)).status == "done"


def test_a_run_of_another_version_does_not_go_on(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.output is not None
    stop(config, monkeypatch)
    manifest = json.loads((config.output / "run.json").read_bytes())
    (config.output / "run.json").write_text(json.dumps({**manifest, "version": "0.0.1"}))
    with pytest.raises(UsageError, match=r"it was made by vidseg 0\.0\.1"):
        run_video(replace(config, resume=True))


def test_the_manifest_says_what_was_used_and_where_a_run_moved(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config.output is not None
    stop(config, monkeypatch)
    path = config.output / "run.json"
    manifest = json.loads(path.read_bytes())
    why = "the CPU has neither AMX nor AVX512-BF16"
    here = {"device": "cpu", "dtype": "float32", "dtype_reason": why, "threads": torch.get_num_threads()}
    assert (manifest["used"], manifest["config"]["dtype"]) == (here, "auto")
    there = {"device": "cuda:1", "dtype": "bfloat16", "threads": 64}
    path.write_text(json.dumps({**manifest, "used": there}))
    args = ["run", config.input, "--box", BOX, "--save", config.save, "--refine", "none", "--snapshot-every", "4"]
    assert main([*args, "--output", str(config.output), "--resume"]) == 0
    told = "frames before 8 were made on cuda in bfloat16, later ones on cpu in float32"
    assert f"warning: {told}\n" in capsys.readouterr().err
    manifest = json.loads(path.read_bytes())
    assert (manifest["status"], manifest["used"], manifest["warnings"]) == ("done", here, [told])
    assert manifest["resumed"] == [{"frame": 8, "used_before": there}]


@pytest.mark.parametrize(
    ("before", "has", "dtype"),
    [("bfloat16", "AMX", "bfloat16"), ("float32", "AMX", "float32"), ("bfloat16", "", "float32")],
)
def test_a_run_goes_on_in_the_precision_that_it_began_in_where_the_cpu_has_it(
    before: str, has: str, dtype: str, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is measured meanwhile: the bytes are those of a run that was not interrupted."""
    assert config.output is not None
    loaded: list[str] = []

    def load(config: RunConfig) -> Sam:
        loaded.append(config.dtype)
        return tiny_sam()

    stop(config, monkeypatch)
    path = config.output / "run.json"
    manifest = json.loads(path.read_bytes())
    path.write_text(json.dumps(manifest | {"used": manifest["used"] | {"dtype": before}}))
    other = torch.float32 if not has or before == "bfloat16" else torch.bfloat16
    monkeypatch.setattr("vidseg.runtime._instructions", lambda: has)
    monkeypatch.setattr("vidseg.runtime._precision_of_the_cpu", lambda: Precision(other, "measured"))
    summary = run_video(replace(config, resume=True), loaders=Loaders(load, lambda config: KeepMasks()))
    manifest = json.loads(path.read_bytes())
    assert (loaded, manifest["used"]["dtype"], manifest["config"]["dtype"]) == ([dtype], dtype, "auto")
    assert manifest["used"]["dtype_reason"] == ("as in the frames before" if has else "measured")
    assert any("frames before 8 were made on cpu in bfloat16" in w for w in summary.warnings) == (before != dtype)


def test_a_prompt_beyond_the_last_frame_is_refused_where_all_frames_are_listed(
    config: RunConfig, tmp_path: Path
) -> None:
    assert config.output is not None
    for path in (config.input, str(_stills_folder(tmp_path / "stills"))):
        with pytest.raises(UsageError, match=rf"on frame {COUNT}, but \w+ has {COUNT} frames, 0 to {COUNT - 1}"):
            run_video(replace(config, input=path, box=(BOX, f"{COUNT}:1,1,20,20")))
    assert not config.output.exists()


@pytest.mark.parametrize("input_", ["unknown length", "damaged still"])
def test_a_prompt_whose_frame_never_comes_is_told(
    config: RunConfig, tmp_path: Path, input_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config.output is not None
    if input_ == "damaged still":
        path, place = _stills_folder(tmp_path / "stills", damaged=(5,)), 5
    else:
        path, place = write_video(tmp_path / "v.ts", [f.rgb for f in frames(COUNT, HEIGHT, WIDTH)]), 500
    args = ["run", str(path), "--output", str(config.output), "--refine", "none", "--box", BOX]
    assert main([*args, "--box", f"7@{place}:1,1,20,20"]) == 5
    told = f"prompts of object 7 were not used: the input gave no frame {place}"
    assert f"warning: {told}\n" in capsys.readouterr().err
    manifest = json.loads((config.output / "run.json").read_bytes())
    assert manifest["status"] == "partial" and told in manifest["warnings"]


def test_stills_of_which_none_can_be_read_are_an_error_without_a_folder(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config.output is not None
    stills = _stills_folder(tmp_path / "stills", damaged=tuple(range(COUNT)))
    assert main(["run", str(stills), "--output", str(config.output), "--box", BOX]) == 3
    told = capsys.readouterr().err
    assert told.splitlines()[-1].startswith("vidseg: ") and told.count("\n") == 1 + told.count("model: ")
    assert "damaged image" in told
    assert not config.output.exists()


def test_equal_warnings_are_one_with_a_count_and_their_number_has_an_end() -> None:
    assert bounded(["a", "b", "a"]) == ["a (2 times)", "b"]
    many = bounded([f"line {n}" for n in range(10_000)])
    assert len(many) == MAX_WARNINGS and many[-1] == f"... and {10_000 - MAX_WARNINGS + 1} more"
