from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

import batch_toys
from batch_toys import finished, make_clip
from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg_pipelines.batch.inputs import expand
from vidseg_pipelines.batch.job_records import Job, Result
from vidseg_pipelines.batch.jobs import safe_name
from vidseg_pipelines.batch.leases import Owner
from vidseg_pipelines.batch.store import BatchRecords, Taken
from vidseg_pipelines.run_folder import RunFolder

BASE = RunConfig()


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    for name in ("b10.mp4", "b2.MP4", "notes.txt", ".hidden.mp4", "frames/1.png", "empty/x.txt", "deep/er/c.mov"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(inputs: list[str]) -> list[str]:
    return [Path(request.config.input).name for request in expand(inputs, BASE)]


def test_files_folders_and_globs(videos: Path) -> None:
    assert names([str(videos)]) == ["b2.MP4", "b10.mp4", "frames"]
    assert names([str(videos / "frames")]) == ["frames"]
    assert names([str(videos / "b*"), str(videos / "missing.mp4")]) == ["b2.MP4", "b10.mp4", "missing.mp4"]
    assert names([str(videos / "**" / "*.mov")]) == ["c.mov"]
    assert names([str(videos / "notes.txt")]) == ["notes.txt"]  # named itself: FFmpeg decides what it is


def test_what_is_left_out_of_a_folder_is_named(videos: Path) -> None:
    said: list[str] = []
    for name in (
        "b2.jpg",
        "x.heic",
        "Thumbs.db",
        "__MACOSX/a.mp4",
        "run/overlay.mp4",
        "run/run.json",
        "two/a.mp4",
        "two/b.mp4",
    ):
        (videos / name).parent.mkdir(exist_ok=True)
        (videos / name).touch()
    requests = list(expand([str(videos)], BASE, said.append))
    assert [Path(request.config.input).name for request in requests] == ["b2.MP4", "b10.mp4", "frames"]
    (line,) = said
    assert line == (
        f"{videos}: left out, as neither a video nor the folder of one: b2.jpg, notes.txt, x.heic, deep/, empty/"
        " and 2 more"
    )
    list(expand([str(videos / "frames")], BASE, said.append))
    assert len(said) == 1


def test_a_video_is_known_by_its_content_and_a_folder_by_its_one_video(tmp_path: Path) -> None:
    folder = tmp_path / "card"
    (folder / "clip7").mkdir(parents=True)
    clip = make_clip(folder / "GX01.MP4", 2).read_bytes()
    for name in ("GX01.LRV", "tape.bin", "noending", "late.mp4.part", "clip7/video.mp4"):
        (folder / name).write_bytes(clip)
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + clip[12:])
    (folder / "sound.dat").write_bytes(clip[:200])
    said: list[str] = []
    requests = list(expand([str(folder)], BASE, said.append))
    assert [Path(r.config.input).name for r in requests] == ["clip7", "GX01.MP4", "noending", "tape.bin"]
    assert said[0].endswith(": GX01.LRV, late.mp4.part, photo.heic, sound.dat")  # a preview has its video's name


def test_a_pattern_below_a_folder_whose_name_looks_like_one(tmp_path: Path) -> None:
    folder = tmp_path / "clips [final] *"
    for name in ("a.mp4", "b.mp4", "deep/c.mp4", "@eaDir/a.mp4/x.jpg", "jobs.csv", "none/x.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "jobs.csv").write_text("input\nlisted.mp4\n")
    assert names([str(folder / "*.mp4")]) == ["a.mp4", "b.mp4"]
    assert names([str(folder / "**" / "*.mp4")]) == ["a.mp4", "b.mp4", "c.mp4"]
    assert names([str(folder / "*")]) == ["a.mp4", "b.mp4", "c.mp4", "listed.mp4"]
    assert names([str(folder / "[!a].mp4")]) == ["b.mp4"]
    with pytest.raises(UsageError, match="no videos or images in folders of that name"):
        names([str(folder / "n*")])


def test_names_with_glob_characters_are_files_when_they_exist(videos: Path) -> None:
    (videos / "[1].mp4").touch()
    assert names([str(videos / "[1].mp4")]) == ["[1].mp4"]


def test_inputs_are_absolute_whatever_the_current_folder(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(videos)
    (request,) = expand(["b10.mp4"], RunConfig(mask=("3:m.png", "n.png"), boxes=Path("d.txt"), tracker="boxes"))
    assert request.config.input == str(videos / "b10.mp4")
    assert request.config.mask == (f"3:{videos / 'm.png'}", str(videos / "n.png"))
    assert request.config.boxes == videos / "d.txt"


def test_weights_are_absolute_whatever_the_current_folder(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(videos)
    for name in ("xmem", "XMem.pth", "m2f.pkl", "a # b.txt"):
        (videos / name).touch()
    own = RunConfig(
        tracker_options={"weights": "xmem", "size": 480},
        tracker_option=("weights=./XMem.pth", "log='a # b.txt'", "memory=official"),
        detector_options={"weights": "m2f.pkl", "threshold": 0.5},
    )
    for model, expected in [
        ("sub/sam.pth", f"{videos}/sub/sam.pth"),
        ("sam-vit-b=../x.pth", f"sam-vit-b={videos.parent}/x.pth"),
        ("compact", "compact"),
    ]:
        (request,) = expand(["b10.mp4"], replace(own, model=model))
        assert request.config.model == expected
    (other,) = expand(["b10.mp4"], RunConfig(tracker_option=("weights=xmem",)))
    assert other.config.all_tracker_options() == {"weights": "xmem"}  # the catalogue's
    options = {"weights": f"{videos}/XMem.pth", "size": 480, "log": f"{videos}/a # b.txt", "memory": "official"}
    assert request.config.all_tracker_options() == options
    assert request.config.detector_options == {"weights": f"{videos}/m2f.pkl", "threshold": 0.5}


def test_manifests_set_prompts_per_video(videos: Path) -> None:
    table = videos / "jobs.csv"
    table.write_text('input,output,box,mask,max_objects\nb2.MP4,one,"1,2,3,4;7@5:1,2,3,4",,\nb10.mp4,,,2:m.png,3\n')
    one, two = expand([str(table)], RunConfig(refine="box"))
    assert (one.name, one.config.box, one.config.refine) == ("one", ("1,2,3,4", "7@5:1,2,3,4"), "box")
    assert (two.name, two.config.mask, two.config.max_objects) == (None, (f"2:{videos / 'm.png'}",), 3)
    lines = videos / "jobs.jsonl"
    lines.write_text(json.dumps({"input": "b2.MP4", "point": ["1,2", "3,4"], "frames": "2:9"}) + "\n\n")
    (three,) = expand([str(lines)], BASE)
    assert (three.config.point, three.config.frames) == (("1,2", "3,4"), "2:9")
    assert three.config.input == one.config.input == str(videos / "b2.MP4")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("comma", [",", ";", "\t"])
def test_manifests_of_windows(tmp_path: Path, encoding: str, comma: str) -> None:
    rows = [["input", "box", "max_objects", ""], ["Bär.mp4", '"1,2,3,4;5,6,7,8"', "3.0", "", ""], ["", "", "", ""]]
    text = "\r\n".join(comma.join(row) for row in rows)
    (tmp_path / "JOBS.CSV").write_bytes(text.encode(encoding))
    (request,) = expand([str(tmp_path / "JOBS.CSV")], BASE)
    assert request.config.input == str(tmp_path / "Bär.mp4")
    assert (request.config.box, request.config.max_objects) == (("1,2,3,4", "5,6,7,8"), 3)
    (tmp_path / "j.jsonl").write_bytes('{"input": "Bär.mp4"}\r\n\r\n'.encode(encoding))
    (request,) = expand([str(tmp_path / "j.jsonl")], BASE)
    assert request.config.input == str(tmp_path / "Bär.mp4")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("j.csv", "input,bxo\na.mp4,1", r"j\.csv, line 2: unknown column 'bxo' \(did you mean 'box'\?\)"),
        ("j.csv", "input,max_objects\na.mp4,many", r"line 2: max_objects: expected an int, got 'many'"),
        ("j.csv", "box\n1", r"line 2: 'input'"),
        ("j.csv", "input\na.mp4,1", r"line 2: unknown column"),
        ("j.csv", "", "without videos"),
        ("j.jsonl", '{"input": 3}', r"line 1: 'input'"),
        ("j.jsonl", "[1]", "line 1: expected a json object"),
        ("j.jsonl", '{"input": ""}', r"line 1: 'input'"),
        (
            "j.jsonl",
            '{"input": "a"}\n\n{"input": \n',
            r"j\.jsonl, line 3: not a valid .jsonl row \(Expecting value at char",
        ),
        ("j.jsonl", "[" * 100_000, "not a valid .jsonl"),
        ("j.jsonl", '{"input": "a", "max_objects": ' + "1" * 5000 + "}", "not a valid .jsonl"),
        ("j.csv", "input\n" + "a" * 200_000, "not a valid .csv"),
        ("j.csv", 'input,box\na,\nb,"1,2\nc,\n', r"j\.csv, line 3: not a valid .csv row \(unexpected end of data"),
        ("j.csv", "input,mask,mask\na,1.png,2.png\n", "line 1: the column 'mask' is there twice"),
        ("j.jsonl", '{"input": "a", "device": "cuda"}', "unknown column 'device'"),
    ],
)
def test_wrong_manifests_name_the_line(tmp_path: Path, file: str, text: str, message: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(UsageError, match=message):
        list(expand([str(tmp_path / file)], BASE))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [([], "no videos given"), (["-"], "standard input"), (["no*such"], "no file"), (["EMPTY"], "without videos")],
)
def test_wrong_inputs(videos: Path, inputs: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(expand([text.replace("EMPTY", str(videos / "empty")) for text in inputs], BASE))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("clip", "clip"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "video"),
        ("/", "_"),
        ("-rf", "rf"),
        (".batch", "batch"),
        ("a\nb\0c", "a_b_c"),
        ("=1+1", "_1_1"),
        ("Ödön 3.", "Ödön 3"),
        ("x" * 300, "x" * 120),
        ("é" * 300, "é" * 60),
        ("\udcff", "_"),
    ],
)
def test_names_of_outputs_are_safe(text: str, name: str) -> None:
    assert safe_name(text) == name


def plan(folder: Path, inputs: list[str], base: RunConfig = BASE, **how: bool) -> list[Job]:
    return batch_toys.plan(folder, expand(inputs, base), **how)[1]


def jobs_in(folder: Path) -> list[Job]:
    return [job for job, _ in BatchRecords(folder).jobs()]


def test_names_of_outputs_are_unique_and_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "clip-2").mkdir(parents=True)  # somebody else's
    inputs = [str(tmp_path / place / "clip.mp4") for place in "abc"]
    assert [job.name for job in plan(out, inputs[:2])] == ["clip", "clip-3"]
    assert [job.name for job in plan(out, inputs[::-1] + inputs)] == ["clip-4", "clip-3", "clip"]
    assert all(job.config.output == out / job.name for job in jobs_in(out))


def test_every_video_has_a_number_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    out, inputs = tmp_path / "out", [str(tmp_path / f"{name}.mp4") for name in "abcd"]
    assert [job.config.video_id for job in plan(out, inputs[1:3])] == [1, 2]
    assert [job.config.video_id for job in plan(out, inputs)] == [3, 1, 2, 4]
    assert [job.config.video_id for job in plan(out, inputs, replace(BASE, video_id=9))] == [3, 1, 2, 4]
    assert [job.config.video_id for job in plan(out, [str(tmp_path / "e.mp4")], replace(BASE, video_id=9))] == [9]


def test_the_name_of_a_failed_job_is_not_free(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (first,) = plan(out, [str(tmp_path / "a" / "clip.mp4")])
    BatchRecords(out).finish(first.key, Result("failed", "why"))
    (out / "clip").rmdir()
    (second,) = plan(out, [str(tmp_path / "b" / "clip.mp4")])
    assert (first.name, second.name) == ("clip", "clip-2")


def test_calls_that_plan_at_the_same_moment_share_the_jobs(tmp_path: Path) -> None:
    out, context = tmp_path / "out", multiprocessing.get_context("fork")
    barrier, inputs = context.Barrier(3), [str(tmp_path / f"{place}/clip.mp4") for place in range(60)]

    def call() -> None:
        barrier.wait()
        plan(out, inputs)

    calls = [context.Process(target=call) for _ in range(2)]
    for process in calls:
        process.start()
    barrier.wait()
    for process in calls:
        process.join()
    assert [process.exitcode for process in calls] == [0, 0]
    assert len(jobs_in(out)) == len(list(out.glob("clip*"))) == 60


def test_a_job_that_is_planned_anew_is_in_no_other_hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a worker begins it in the moment before its folder is cleared."""
    out, video = tmp_path / "out", str(tmp_path / "v.mp4")
    (job,) = plan(out, [video])
    store = BatchRecords(out)
    worker = Owner.this_process("other call", 0)
    seen: list[Taken | None] = []
    monkeypatch.setattr(RunFolder, "clear", lambda folder: seen.append(store.take_job(job.key, worker)))
    plan(out, [video], overwrite=True)
    assert seen == [None]
    assert store.take_job(job.key, worker) is not None
    with pytest.raises(UsageError, match="out/v is being made by another"):
        plan(out, [video], overwrite=True)


def test_same_video_with_other_prompts_is_another_job(tmp_path: Path) -> None:
    rows = [
        {"input": "v.mp4", "box": "1,1,9,9"},
        {"input": "v.mp4", "box": "2,2,9,9"},
        {"input": "v.mp4", "output": "w"},
    ]
    (tmp_path / "j.jsonl").write_text("\n".join(map(json.dumps, rows)))
    jobs = plan(tmp_path / "out", [str(tmp_path / "j.jsonl")])
    assert [job.name for job in jobs] == ["v", "v-2", "w"]
    (tmp_path / "j.jsonl").write_text("\n".join(map(json.dumps, rows[::-1])))
    assert plan(tmp_path / "out", [str(tmp_path / "j.jsonl")]) == jobs[::-1]


def test_other_settings_are_refused_once_there_are_results(tmp_path: Path) -> None:
    out, video = tmp_path / "out", str(tmp_path / "v.mp4")
    plan(out, [video])
    (job,) = plan(out, [video], RunConfig(refine="none"))  # nothing was made yet
    assert (job.name, len(jobs_in(out))) == ("v", 1)
    BatchRecords(out).finish(job.key, Result("failed", "why"))
    with pytest.raises(UsageError, match=r"out/v was made with other settings \(config.refine: 'none' -> 'auto'\)"):
        plan(out, [video])
    (job,) = plan(out, [video], overwrite=True)
    assert job.name == "v"
    assert finished(BatchRecords(out)) == set()


def test_failed_jobs_wait_for_retry_failed(tmp_path: Path) -> None:
    out, video = tmp_path / "out", str(tmp_path / "v.mp4")
    (job,) = plan(out, [video])
    BatchRecords(out).finish(job.key, Result("failed", "why"))
    plan(out, [video])
    assert finished(BatchRecords(out)) == {job.key}
    plan(out, [video], retry_failed=True)
    assert finished(BatchRecords(out)) == set()


def test_the_output_folder_can_be_moved(tmp_path: Path) -> None:
    (job,) = plan(tmp_path / "out", [str(tmp_path / "v.mp4")])
    (tmp_path / "out").rename(tmp_path / "moved")
    (moved,) = jobs_in(tmp_path / "moved")
    assert (moved.key, moved.config.output) == (job.key, tmp_path / "moved" / "v")
