"""Names of videos, of manifests and of objects stay inside the output folder and write nothing else."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import batch_toys
from media import barcode_frame, write_video
from toys import BoxesEverywhere, tiny_sam
from vidseg.config import RunConfig
from vidseg.errors import InputError
from vidseg.names import printable, safe_name
from vidseg.outputs import export, open_recording
from vidseg.types import Frame, Prompt, Source, Tracks
from vidseg.video import LiveSource
from vidseg_pipelines import build, progress
from vidseg_pipelines import run as run_module
from vidseg_pipelines.batch.inputs import expand
from vidseg_pipelines.batch.job_records import Job
from vidseg_pipelines.batch.store import BatchRecords
from vidseg_pipelines.cli import main
from vidseg_pipelines.run import Loaders, run_video
from vidseg_pipelines.run_summary import RunSummary

HOSTILE = [
    "..",
    ".",
    "",
    "../../evil",
    "..\\..\\evil",
    "/etc/evil",
    "C:\\evil",
    "a/../../evil",
    "x" * 300,
    "\N{LATIN SMALL LETTER E WITH ACUTE}" * 300,
    "con",
    "NUL.txt",
    "com1",
    "-rf",
    "~root",
    "$HOME",
    "%TEMP%",
    "a\nb",
    "a\0b",
    "\x1b[2Jevil",
    "evil\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
    "\N{FULLWIDTH SOLIDUS}evil",
    "\N{TWO DOT LEADER}\N{DIVISION SLASH}evil",
    ".batch",
    "name ",
    "name.",
    "\udcff",
    "<b>&quot;",
]


@settings(deadline=None)
@given(st.text() | st.sampled_from(HOSTILE))
def test_safe_names_are_one_part_of_a_path(text: str) -> None:
    name = safe_name(text)
    assert Path(name).parts == (name,)
    assert name.strip(". ") == name and not name.startswith("-")
    assert 0 < len(name.encode()) <= 121
    assert name.isprintable() and not set(name) & set('/\\:*?"<>|')
    assert name.partition(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9"}


def test_equal_looking_names_are_equal() -> None:
    assert safe_name("e\N{COMBINING ACUTE ACCENT}") == safe_name("\N{LATIN SMALL LETTER E WITH ACUTE}")


def plan(out: Path, manifest: Path) -> list[Job]:
    return batch_toys.plan(out, expand([str(manifest)], RunConfig()))[1]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_outputs_that_a_manifest_asks_for(tmp_path: Path, suffix: str) -> None:
    names = [name for name in HOSTILE if name and "\0" not in name and "\udcff" not in name and "\n" not in name]
    rows = [{"input": f"{number}.mp4", "output": name} for number, name in enumerate(names)]
    manifest, out = tmp_path / f"jobs{suffix}", tmp_path / "safe" / "out"
    if suffix == ".jsonl":
        manifest.write_text("\n".join(map(json.dumps, rows)))
    else:
        quoted = [name.replace('"', '""') for name in names]
        manifest.write_text("input,output\n" + "".join(f'{k}.mp4,"{name}"\n' for k, name in enumerate(quoted)))
    jobs = plan(out, manifest)
    assert len(jobs) == len({job.name for job in jobs}) == len(names)
    assert {path.name for path in out.iterdir()} == {job.name for job in jobs} | {".batch"}
    assert {path.name for path in tmp_path.iterdir()} == {manifest.name, "safe"}
    assert [path.name for path in (tmp_path / "safe").iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["../evil", "..", "", "a/b", ".batch"])
def test_a_record_that_names_a_folder_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "jobs.jsonl").write_text('{"input": "a.mp4"}')
    (job,) = plan(tmp_path / "out", tmp_path / "jobs.jsonl")
    with BatchRecords(tmp_path / "out").database.writing() as db:
        db.execute("UPDATE jobs SET name=? WHERE key=?", (name, job.key))
    with pytest.raises(InputError, match="is not a folder inside the batch's"):
        BatchRecords(tmp_path / "out").job(job.key)


LABEL = '../../<script>\x1b[2J\n"\N{RIGHT-TO-LEFT OVERRIDE}'


class Labelled(BoxesEverywhere):
    def step(self, frame: Frame, prompts: tuple[Prompt, ...] = ()) -> list[Tracks]:  # type: ignore[override]
        (tracks,) = super().step(frame)
        return [Tracks(tracks.frame_index, tracks.ids, tracks.boxes, tracks.scores, (LABEL,) * self.count)]


@pytest.mark.parametrize("name", ["...mp4", "-o.mp4", " .mp4", "x" * 240 + ".mp4", "a\nb\x1b[2J.mp4", "nul.mp4"])
def test_videos_with_hostile_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --output the folder's name comes from the video: "...mp4" would be runs/.., the current folder."""
    home = tmp_path / "home"
    (home / "videos").mkdir(parents=True)
    monkeypatch.chdir(home)
    video = write_video(home / "videos" / "v.mp4", [barcode_frame(n) for n in range(2)]).rename(home / "videos" / name)
    config = RunConfig(input=str(video), tracker="boxes", save="report", refine="box", batch=2)
    run_video(config, loaders=Loaders(lambda config: tiny_sam(), lambda config: Labelled(1)))
    assert {path.name for path in home.iterdir()} == {"videos", "runs"}
    (folder,) = (home / "runs").iterdir()
    assert (folder / "masks.jsonl").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


def test_labels_of_objects(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", [barcode_frame(n) for n in range(2)])
    out = tmp_path / "out"
    saves = "davis,ytvis,coco,mots,overlay,report"
    config = RunConfig(input=str(video), tracker="boxes", save=saves, output=out, refine="box", batch=2)
    run_video(config, loaders=Loaders(lambda config: tiny_sam(), lambda config: Labelled(2)))
    export(open_recording(out / "masks.jsonl"), out, ["labelme"])
    assert {path.name for path in tmp_path.iterdir()} == {"v.mp4", "out"}
    assert "<script>" not in (out / "report.html").read_text()
    assert len((out / "masks.jsonl").read_bytes().splitlines()) == 2
    assert all(len(line.split(" ")) == 6 for line in (out / "mots.txt").read_text().splitlines())
    assert json.loads((out / "labelme" / "v_00000.json").read_bytes())["shapes"][0]["label"] == printable(LABEL).strip()
    coco = json.loads((out / "coco.json").read_bytes())
    assert [category["name"] for category in coco["categories"]] == [printable(LABEL).strip()]
    assert {entry["category_id"] for entry in coco["annotations"]} == {coco["categories"][0]["id"]}


def test_messages_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = tmp_path / "a\x1b[2J\n\N{RIGHT-TO-LEFT OVERRIDE}b.mp4"
    video.write_text("no video at all")
    assert main(["run", str(video), "--output", str(tmp_path / "out")]) == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.rstrip("\n").isprintable()
    assert "a?[2J ?b.mp4" in told
    assert printable("a\tb\x07") == "a b?"


@pytest.mark.parametrize("kind", ["video", "stills", "live"])
def test_a_run_that_ends_well_does_not_steer_the_terminal_either(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Progress, warnings, notices and the results: names of files are in all of them."""
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: tiny_sam())
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: BoxesEverywhere(1))
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0)
    name = "e\x1b[31mv\x07il\udc9b"
    pictures = [barcode_frame(n) for n in range(4)]
    if kind == "stills":
        path = tmp_path / name
        path.mkdir()
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(path / f"{number}{name}.png")
        (path / f"3{name}.png").write_bytes((path / f"3{name}.png").read_bytes()[:200])
    else:
        path = write_video(tmp_path / "v.mp4", pictures).rename(tmp_path / f"{name}.mp4")
    if kind == "live":

        def noticed(config: RunConfig, *, on_open: Callable[[Source], None], **how: object) -> RunSummary:
            source = object.__new__(LiveSource)
            source.live = True
            on_open(source)
            source.notice(f"{name}: connected again")
            return run_video(config, **how)  # type: ignore[arg-type]

        monkeypatch.setattr(run_module, "run_video", noticed)
    out = tmp_path / f"out{name}"
    assert main(["run", str(path), "--output", str(out), "--save", "overlay"]) == (5 if kind == "stills" else 0)
    told = capsys.readouterr()
    assert all(line.isprintable() for line in [*told.err.splitlines(), *told.out.splitlines()])
    assert "e?[31mv?il?: " in told.err and "results: " in told.out
    assert ("warning: " in told.err) == (kind == "stills")


def test_names_are_no_markup_of_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.RunProgress("a[red]b[/]\x1b[2J", 3) as bar:
        bar.advance(3, 1)
    assert "a[red]b[/]?[2J" in stream.getvalue()
