from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import paths
from toys import KeepMasks, frames, tiny_sam
from vidseg.config import RunConfig
from vidseg.errors import InputError, OutputError, UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs import JournalSink, read_journal
from vidseg.sam.model import Sam
from vidseg.types import Frame, Prompt, Tracks
from vidseg.video import VideoWriter, open_source
from vidseg_pipelines import build, run_inputs
from vidseg_pipelines.cli import main
from vidseg_pipelines.run import run_video

COUNT = 23


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    writer = VideoWriter(path, 128, 72, fps=Fraction(24), time_base=Fraction(1, 2400))
    for frame in frames(COUNT):
        writer.write(frame.rgb, frame.pts)
    writer.close()
    return path


@pytest.fixture
def first_mask(tmp_path: Path) -> Path:
    labels = np.zeros((72, 128), np.uint8)
    labels[10:40, 10:50], labels[45:70, 70:120] = 1, 2
    image = Image.fromarray(labels, "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(tmp_path / "first.png")
    return tmp_path / "first.png"


@pytest.fixture(autouse=True)
def toy_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: tiny_sam())
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: KeepMasks())


@pytest.fixture
def config(video: Path, first_mask: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(
        input=str(video),
        output=tmp_path / "out",
        mask=(str(first_mask),),
        save="davis,ytvis,coco,mots,overlay,report",
        refine="box",
        snapshot_every=4,
    )


def contents(folder: Path) -> dict[str, bytes]:
    names = ["masks.jsonl", "ytvis.json", "coco.json", "mots.txt", "report.html"]
    files = [folder / n for n in names] + sorted((folder / "davis").iterdir())
    return {f.name: f.read_bytes() for f in files}


def stop_at(monkeypatch: pytest.MonkeyPatch, frame_index: int, error: BaseException) -> None:
    """The tracker raises ``error`` at a frame, once."""
    original = KeepMasks.step

    def step(self: KeepMasks, frame: Frame, prompts: tuple[Prompt, ...] = ()) -> list[Tracks]:
        if frame.index == frame_index:
            monkeypatch.setattr(KeepMasks, "step", original)
            raise error
        return original(self, frame, prompts)

    monkeypatch.setattr(KeepMasks, "step", step)


def test_no_output_decodes_run_lengths_while_the_video_runs(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("run-lengths are decoded")

    for name in ("vidseg.masks.rle.decode", "vidseg.masks.rle.decode_window", "vidseg.masks.frame_masks.decode_window"):
        monkeypatch.setattr(name, refuse)
    assert run_video(config).frames == COUNT
    (first, *_) = read_journal(config.output / "masks.jsonl")  # type: ignore[operator]
    with pytest.raises(AssertionError, match="are decoded"):
        _ = first.label_map


def test_what_a_tracker_says_of_its_input_is_in_the_manifest_and_on_the_screen(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = KeepMasks()
    tracker.notes, tracker.warnings = ["matched by overlap"], ["3 boxes are outside"]  # type: ignore[attr-defined]
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: tracker)
    arguments = ["run", config.input, "--mask", *config.mask, "--save", "none", "--output", str(tmp_path / "out")]
    assert main(arguments) == 5
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (manifest["status"], manifest["notes"], manifest["warnings"]) == (
        "partial",
        ["matched by overlap"],
        ["3 boxes are outside"],
    )
    shown = capsys.readouterr().err
    assert "note: matched by overlap\n" in shown
    assert "warning: 3 boxes are outside\n" in shown
    assert main([*arguments, "--resume"]) == 5  # a finished run says it again
    del tracker.warnings  # type: ignore[attr-defined]
    assert main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize(("object_id", "status"), [(300, "done"), (1000, "partial")])
def test_no_id_ends_a_run(config: RunConfig, object_id: int, status: str) -> None:
    box = f"{object_id}@10,10,60,50"
    summary = run_video(replace(config, mask=(), box=(box,), refine="none", save="mots,davis,coco"))
    assert (summary.status, summary.objects, summary.frames) == (status, (object_id,), COUNT)
    assert sorted(path.name for path in summary.folder.iterdir()) == sorted(
        ["coco.json", "davis", "masks.jsonl", "run.json", *(["mots.txt"] if status == "done" else [])]
    )
    left_out = "mots.txt is left out: object 1000 does not fit, MOTS ids end at 999"
    assert summary.warnings == (() if status == "done" else (left_out,))
    labels = np.asarray(Image.open(summary.folder / "davis" / "00005.png"))
    assert np.unique(labels).tolist() == [0, object_id]


def test_a_run_of_stills_names_its_pngs_after_them(config: RunConfig, tmp_path: Path) -> None:
    names = [f"{5 * k:05d}" for k in range(3)]
    (tmp_path / "stills").mkdir()
    for name, frame in zip(names, frames(3), strict=True):
        Image.fromarray(frame.rgb).save(tmp_path / "stills" / f"{name}.jpg")
    summary = run_video(replace(config, input=str(tmp_path / "stills"), save="davis"))
    assert sorted(path.stem for path in (summary.folder / "davis").iterdir()) == names
    assert [masks.name for masks in read_journal(summary.folder / "masks.jsonl")] == [f"{name}.jpg" for name in names]
    assert "frame_names" not in json.loads((summary.folder / "run.json").read_text())["video"]


def test_the_first_result_does_not_wait_for_its_micro_batch(config: RunConfig) -> None:
    sizes: list[int] = []
    run_video(replace(config, batch=4), on_start=lambda info, total: lambda results: sizes.append(len(results)))
    assert sizes[:3] == [1, 3, 4]


def test_all_outputs_speak_of_the_same_run(config: RunConfig) -> None:
    summary = run_video(config)
    folder = summary.folder
    assert (summary.status, summary.frames, summary.objects) == ("done", COUNT, (1, 2))
    journal = list(read_journal(folder / "masks.jsonl"))
    assert [m.frame_index for m in journal] == list(range(COUNT))
    assert [m.time_s for m in journal] == pytest.approx([i / 24 for i in range(COUNT)])
    assert len(list((folder / "davis").glob("*.png"))) == COUNT
    overlay = open_source(folder / "overlay.mp4")
    shown = list(overlay)
    assert [f.time_s for f in shown] == pytest.approx([m.time_s for m in journal], abs=1e-3)
    ytvis = json.loads((folder / "ytvis.json").read_text())
    assert [len(r["segmentations"]) for r in ytvis] == [COUNT, COUNT]
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["status"] == "done"
    assert manifest["frames"] == COUNT
    assert manifest["config"]["refine"] == "box"
    assert manifest["weights"]["tracker"]["name"] == "compact-xmem"
    assert len(manifest["weights"]["tracker"]["sha256"]) == 64
    assert {"encode", "decode", "track", "paste", "write"} <= manifest["seconds"].keys()
    assert not list(folder.rglob("*.part"))
    assert not (folder / "snapshot.safetensors").exists()


def test_a_part_of_the_video_keeps_its_indices(config: RunConfig, video: Path, first_mask: Path) -> None:
    part = RunConfig(input=str(video), output=config.output, mask=(str(first_mask),), frames="5:9")
    assert run_video(part).frames == 4
    assert [m.frame_index for m in read_journal(part.output / "masks.jsonl")] == [5, 6, 7, 8]  # type: ignore[operator]


def test_a_box_of_another_size_of_picture_is_a_note_of_the_run(config: RunConfig) -> None:
    summary = run_video(replace(config, mask=(), box=("2,2,9999,60",), frames="0:1"))
    assert (summary.status, [note.partition(",")[0] for note in summary.notes]) == ("done", ["--box 2"])


def test_a_run_that_fails_before_its_first_frame_leaves_nothing(config: RunConfig) -> None:
    assert config.output is not None
    with pytest.raises(InputError, match="it has only 23 frames"):
        run_video(replace(config, mask=(), frames="500:600"))
    with pytest.raises(InputError, match="frames start at 500, but it has only 23 frames"):
        run_video(replace(config, frames="500:600"))  # not: the mask is on frame 500
    assert not config.output.exists()
    config.output.mkdir()
    (config.output / "notes.txt").write_text("mine")
    with pytest.raises(InputError):
        run_video(replace(config, mask=(), frames="500:600", overwrite=True))
    assert [path.name for path in config.output.iterdir()] == ["notes.txt"]


def test_prompt_outside_the_part_is_refused(config: RunConfig, video: Path) -> None:
    with pytest.raises(UsageError, match=r"frame 9, outside --frames 5:9"):
        run_video(RunConfig(input=str(video), output=config.output, box=("9:1,1,20,20",), frames="5:9"))


@pytest.mark.parametrize("stop", [5, 9, 22])
def test_a_stopped_run_resumes_to_the_same_bytes(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    run_video(config)
    whole = contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "whole")
    stop_at(monkeypatch, stop, RuntimeError("killed"))
    with pytest.raises(RuntimeError, match="killed"):
        run_video(config)
    with (tmp_path / "out" / "masks.jsonl").open("ab") as file:
        file.write(b'{"frame":99,"pt')  # a line truncated by the kill
    resumed = run_video(_with(config, resume=True))
    assert resumed.frames == COUNT
    assert contents(tmp_path / "out") == whole
    assert len(list(open_source(tmp_path / "out" / "overlay.mp4"))) == COUNT


def test_resume_does_not_compute_finished_frames_again(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 17, RuntimeError("killed"))
    with pytest.raises(RuntimeError):
        run_video(config)
    seen: list[int] = []
    original = KeepMasks.step
    monkeypatch.setattr(
        KeepMasks, "step", lambda self, frame, prompts=(): seen.append(frame.index) or original(self, frame, prompts)
    )
    run_video(_with(config, resume=True))
    assert seen == list(range(16, COUNT))


def test_resume_of_a_finished_run_changes_nothing(config: RunConfig) -> None:
    run_video(config)
    before = contents(config.output)  # type: ignore[arg-type]
    assert run_video(_with(config, resume=True)).status == "done"
    assert contents(config.output) == before  # type: ignore[arg-type]


def test_resume_with_other_settings_names_the_difference(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 9, RuntimeError("killed"))
    with pytest.raises(RuntimeError):
        run_video(config)
    with pytest.raises(UsageError, match=r"config\.refine: 'box' -> 'none'"):
        run_video(_with(config, resume=True, refine="none"))
    Path(config.input).write_bytes(Path(config.input).read_bytes() + b"x")
    with pytest.raises(UsageError, match=r"input\.bytes"):
        run_video(_with(config, resume=True))


def test_resume_with_other_files_names_the_difference(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = Path(config.mask[0]).with_name("boxes.json")
    boxes.write_text("[]")
    config = _with(config, tracker="boxes", boxes=boxes)
    stop_at(monkeypatch, 9, RuntimeError("killed"))
    with pytest.raises(RuntimeError):
        run_video(config)
    boxes.write_text("[ ]")
    with pytest.raises(UsageError, match=r"prompts\..*boxes\.json: '4f53cda18c.*' -> "):
        run_video(_with(config, resume=True))
    boxes.write_text("[]")
    mask = Image.open(config.mask[0])
    mask.putpixel((0, 0), 1)
    mask.save(config.mask[0])
    with pytest.raises(UsageError, match=r"prompts\..*first\.png"):
        run_video(_with(config, resume=True))


@pytest.mark.parametrize("size", [10, 70_000, 3 << 20])
def test_files_of_the_same_size_are_told_apart(tmp_path: Path, size: int) -> None:
    (tmp_path / "frames").mkdir()
    files = [tmp_path / "frames" / f"{number}.bmp" for number in range(2)]
    for file in files:
        file.write_bytes(bytes(size))
    before, folder = [run_inputs.fingerprint(path) for path in (files[0], tmp_path / "frames")]
    assert before == run_inputs.fingerprint(files[1])
    for place in (0, size // 2, size - 1):
        # Of a large file only blocks are read; a change as large as a thirtieth of it cannot fall between them.
        changed = bytearray(size)
        changed[place : place + size // 30 + 1] = b"x" * len(changed[place : place + size // 30 + 1])
        files[0].write_bytes(changed)
        assert run_inputs.fingerprint(files[0]) != before
    assert run_inputs.fingerprint(tmp_path / "frames") != folder


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"status": "done", "config": 3}', "[" * 100_000])
def test_a_manifest_that_is_none_is_refused(config: RunConfig, text: str) -> None:
    run_video(config)
    (config.output / "run.json").write_text(text)  # type: ignore[operator]
    with pytest.raises(UsageError, match=r"run\.json: not the manifest of a run; use --overwrite"):
        run_video(_with(config, resume=True))


def test_weights_fetched_by_the_stopped_run_are_no_difference(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: list[str] = []

    def fetch(*args: object, **kwargs: object) -> Sam:
        here.append("digest")
        return tiny_sam()

    monkeypatch.setattr(build, "load_sam", fetch)
    monkeypatch.setattr(run_inputs, "weights_identity", lambda name: {"name": name, "sha256": "".join(here[:1])})
    stop_at(monkeypatch, 9, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_video(config)
    monkeypatch.undo()
    monkeypatch.setattr(build, "load_sam", fetch)
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: KeepMasks())
    monkeypatch.setattr(run_inputs, "weights_identity", lambda name: {"name": name, "sha256": "digest"})
    assert run_video(_with(config, resume=True)).status == "done"


def test_existing_output_is_refused_kept_or_replaced(config: RunConfig) -> None:
    assert config.output is not None
    run_video(config)
    (config.output / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="use --resume, --overwrite"):
        run_video(config)
    run_video(_with(config, overwrite=True, save="none"))
    assert not (config.output / "davis").exists()
    assert (config.output / "notes.txt").read_text() == "mine"


def test_interrupt_closes_the_outputs(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.output is not None
    stop_at(monkeypatch, 12, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_video(config)
    done = len(list(read_journal(config.output / "masks.jsonl")))
    assert done == 12
    assert len(list(open_source(config.output / "overlay.mp4"))) == done
    assert len(json.loads((config.output / "ytvis.json").read_text())[0]["segmentations"]) == done
    assert json.loads((config.output / "run.json").read_text())["status"] == "interrupted"


def test_a_full_disk_loses_nothing_that_was_written(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.output is not None
    original = JournalSink.write

    def write(self: JournalSink, frame: Frame, masks: FrameMasks) -> None:
        if masks.frame_index == 6:
            raise OutputError("masks.jsonl: cannot write: the disk is full")
        original(self, frame, masks)

    monkeypatch.setattr(JournalSink, "write", write)
    with pytest.raises(OutputError, match="the disk is full"):
        run_video(config)
    assert [m.frame_index for m in read_journal(config.output / "masks.jsonl")] == list(range(6))
    assert json.loads((config.output / "run.json").read_text())["status"] == "failed"


def test_truncated_video_is_done_in_part(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = video.read_bytes()
    video.write_bytes(data[: int(len(data) * 0.6)])
    code = main(["run", str(video), "--output", str(tmp_path / "o"), "--box", "10,10,60,60", "--save", "davis"])
    captured = capsys.readouterr()
    assert code == 5
    assert "warning:" in captured.err
    manifest = json.loads((tmp_path / "o" / "run.json").read_text())
    assert manifest["status"] == "partial"
    assert 0 < manifest["frames"] < COUNT


def _text(folder: Path) -> str:
    (folder / "v.mp4").write_text("hello, I am no video\n" * 50)
    return str(folder / "v.mp4")


def _concat(folder: Path) -> str:
    (folder / "v.mp4").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    return str(folder / "v.mp4")


def _empty_folder(folder: Path) -> str:
    (folder / "nothing").mkdir()
    return str(folder / "nothing")


def _mixed(folder: Path) -> str:
    (folder / "images").mkdir()
    for name, size in (("a.png", (8, 8)), ("b.png", (9, 8))):
        Image.new("RGB", size).save(folder / "images" / name)
    return str(folder / "images")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: str(folder / "missing.mp4"), "missing.mp4"),
        (_text, "v.mp4"),
        (_concat, "v.mp4"),
        (_empty_folder, "nothing"),
        (_mixed, "b.png"),
    ],
)
def test_unreadable_input_is_one_line_and_exit_3(
    make: Callable[[Path], str], message: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", make(tmp_path), "--output", str(tmp_path / "o")]) == 3
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--box", "500,500,600,600"], "outside the frame, which is 128x72"),
        (["--tracker", "xmen"], "did you mean 'xmem'"),
        (["--config", "CONFIG"], "unknown option 'trackr' (did you mean 'tracker'?)"),
        (["--frames", "9:2"], "0 <= A < B"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_2(
    flags: list[str], message: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("trackr: xmem\n")
    flags = [str(tmp_path / "c.yaml") if f == "CONFIG" else f for f in flags]
    assert main(["run", str(video), "--output", str(tmp_path / "o"), *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    script = """
import resource, sys
import torch
from toys import BoxesEverywhere, frames, tiny_sam
from vidseg_pipelines.refiner import RefineOptions, Refiner
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.streaming import stream
from vidseg.outputs import JournalSink
from vidseg.types import Frame, VideoInfo
from fractions import Fraction
from pathlib import Path
sam = tiny_sam()
base = frames(8, 480, 640)
def run(count):
    segmenter = Segmenter(BoxesEverywhere(3), sam, Refiner(sam, RefineOptions("box")))
    segmenter.start(VideoInfo(640, 480, Fraction(24)))
    source = (Frame(i, i, i / 24, base[i % 8].rgb.copy()) for i in range(count))
    journal = JournalSink(Path(sys.argv[1]) / f"{count}.jsonl")
    stream(source, segmenter, [journal], batch=4)
    journal.close()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
torch.set_num_threads(1)
short, long = run(24), run(104)
print(long - short)
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=paths.HELPERS,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(result.stdout) < 20  # MB; 80 frames of 640x480 are 74 MB


def _with(config: RunConfig, **changes: object) -> RunConfig:

    return replace(config, **changes)  # type: ignore[arg-type]


def test_names_of_objects_are_in_every_file(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("ant\nbear\nfox\n")
    named = _with(config, label=("1=fox", "2=bear", "9=ant"), classes=classes, save="ytvis,coco,labelme")
    summary = run_video(named)
    folder = summary.folder
    assert (summary.status, summary.warnings) == ("done", ("--label 9=ant: the run has no object 9",))
    assert {masks.labels for masks in read_journal(folder / "masks.jsonl")} == {("fox", "bear")}
    entries = json.loads((folder / "ytvis.json").read_text())
    assert [(e["category_id"], e["category_name"]) for e in entries] == [(3, "fox"), (2, "bear")]
    assert [c["name"] for c in json.loads((folder / "coco.json").read_text())["categories"]] == ["ant", "bear", "fox"]
    classes.unlink()  # the run knows the numbers
    assert main(["export", str(folder), "--to", "coco-results"]) == 0
    assert {e["category_id"] for e in json.loads((folder / "coco_results.json").read_text())} == {2, 3}


def test_a_name_outside_the_class_file_is_refused(config: RunConfig, tmp_path: Path) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("ant\nbear\n")
    with pytest.raises(UsageError, match=r"--label 1=bera \(did you mean 'bear'\?\): .*classes\.txt has no such class"):
        run_video(_with(config, label=("1=bera",), classes=classes))
    assert not (config.output or Path()).exists()


def test_overwrite_removes_the_folders_of_formats_and_nothing_else_in_them(config: RunConfig) -> None:
    folder = run_video(_with(config, save="labelme,davis")).folder
    (folder / "labelme" / "notes.txt").write_text("mine")
    run_video(_with(config, save="none", overwrite=True))
    assert [path.name for path in (folder / "labelme").iterdir()] == ["notes.txt"]
    assert not (folder / "davis").exists()
