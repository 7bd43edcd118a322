"""Files made from the journal, the overlay, and ``vidseg export``."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from exports import COUNT, SIZE, exported, frame, result, square, write_run
from media import barcode_video, file_size_limit
from vidseg.errors import InputError, OutputError, UsageError
from vidseg.evaluation.label_maps import read_label_map
from vidseg.masks import area, bbox, color_of, davis_palette, decode, empty_rle, encode
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.trust import Signals
from vidseg.outputs import (
    WRITERS,
    DavisSink,
    JournalSink,
    OverlaySink,
    ThumbnailSink,
    draw_masks,
    export,
    open_recording,
    read_journal,
)
from vidseg.outputs import journal as journal_module
from vidseg.outputs import recording as recording_module
from vidseg.outputs.folder import claimed
from vidseg.outputs.style import OverlayStyle
from vidseg.types import Frame, VideoInfo
from vidseg.video import open_source
from vidseg_pipelines.commands.export import ExportCommand


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def test_ytvis(run):
    path = exported("ytvis", run / "masks.jsonl", run)
    entries = json.loads(path.read_text())
    assert [(e["id"], e["video_id"], e["category_id"], e["length"]) for e in entries] == [(1, 1, 1, 6), (2, 1, 2, 6)]
    assert [e["category_name"] for e in entries] == ["dog", "object"]
    for entry in entries:
        assert len(entry["segmentations"]) == COUNT
        for index, rle in enumerate(entry["segmentations"]):
            mask = square(index, entry["id"])
            assert (rle is None) == (not mask.any())
            if rle is not None:
                assert (coco.decode(rle) == mask).all()
    seen = [k for k in range(COUNT) if k not in (0, 3)]
    assert entries[1]["score"] == pytest.approx(np.mean([0.5 + 0.2 * k / COUNT for k in seen]), abs=1e-6)
    before = path.read_bytes()
    assert exported("ytvis", run / "masks.jsonl", run).read_bytes() == before


def test_coco_results(run):
    entries = json.loads(exported("coco-results", run / "masks.jsonl", run).read_text())
    assert len(entries) == COUNT + 4
    entry = next(e for e in entries if (e["image_id"], e["track_id"]) == (2, 1))
    assert entry["bbox"] == [10, 10, 20, 20]
    assert (coco.decode(entry["segmentation"]) == square(2, 1)).all()
    assert all(coco.area(e["segmentation"]) > 0 for e in entries)
    assert {(e["track_id"], e["category_name"], e["category_id"]) for e in entries} == {(1, "dog", 1), (2, "object", 2)}


def test_mots(run):
    lines = exported("mots", run / "masks.jsonl", run).read_text().splitlines()
    assert len(lines) == COUNT + 4
    index, number, kind, height, width, counts = lines[-1].split(" ")
    assert (int(index), int(kind), int(height), int(width)) == (5, int(number) // 1000, *SIZE)
    mask = coco.decode({"size": list(SIZE), "counts": counts})
    assert (mask == square(5, int(number) % 1000)).all()


def test_davis(run):
    folder = exported("davis", run / "masks.jsonl", run)
    assert [p.name for p in sorted(folder.iterdir())] == [f"{k:05d}.png" for k in range(COUNT)]
    for index in range(COUNT):
        picture = Image.open(folder / f"{index:05d}.png")
        assert picture.mode == "P"
        assert picture.getpalette() == davis_palette().ravel().tolist()
        assert (np.asarray(picture) == square(index, 1) + 2 * square(index, 2)).all()


def named_run(folder, names):
    """The journal of :func:`run` where every frame has a file name."""
    folder.mkdir()
    sink = JournalSink(folder / "masks.jsonl")
    for index, name in enumerate(names):
        sink.write(frame(index), replace(result(index), name=name))
    sink.close()
    return folder / "masks.jsonl"


@pytest.mark.parametrize("form", ["{:05d}.jpg", "frame{:05d}.jpg", "{:08d}.PNG", "cam.left.{}.tif"])
def test_exports_carry_the_names_of_the_stills(tmp_path, form):
    names = [form.format(5 * k) for k in range(COUNT)]
    stems = [name.rpartition(".")[0] for name in names]
    journal = named_run(tmp_path / "run", names)
    davis = exported("davis", journal, tmp_path)
    assert {path.name for path in davis.iterdir()} == {f"{stem}.png" for stem in stems}
    assert (np.asarray(Image.open(davis / f"{stems[2]}.png")) == square(2, 1) + 2 * square(2, 2)).all()
    labelme = exported("labelme", journal, tmp_path)
    records = {path.name: json.loads(path.read_text()) for path in labelme.iterdir()}
    assert {name: record["imagePath"] for name, record in records.items()} == {
        f"{stem}.json": name for stem, name in zip(stems, names, strict=True)
    }
    entries = json.loads(exported("coco-results", journal, tmp_path).read_text())
    assert {(e["image_id"], e["file_name"]) for e in entries} == set(enumerate(names))


def one_object(index: int, object_id: int) -> FrameMasks:
    rle = encode(square(index, 1))
    return FrameMasks(index, index, 0.0, (object_id,), bbox(rle)[None], np.ones(1, np.float32), (None,), (rle,))


def test_davis_holds_ids_of_16_bits(tmp_path):
    sink = DavisSink(tmp_path / "davis")
    for index, object_id in enumerate((255, 256, 65535, 65536)):
        sink.write(frame(index), one_object(index, object_id))
    pictures = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "davis").iterdir()}
    assert sorted(pictures) == ["00000.png", "00001.png", "00002.png"]
    for index, object_id in enumerate((255, 256, 65535)):
        assert (pictures[f"{index:05d}.png"] == object_id * square(index, 1)).all()
        assert (read_label_map(tmp_path / "davis" / f"{index:05d}.png") == pictures[f"{index:05d}.png"]).all()
    assert Image.open(tmp_path / "davis" / "00000.png").mode == "P"
    assert sink.warnings == ["davis: frame 3 is left out: object 65536; the ids of a PNG end at 65535"]
    for index in (5, 6):  # of a long run, still one line
        sink.write(frame(index), one_object(index, 70000))
    assert sink.warnings == [
        "davis: 3 frames from frame 3 on are left out: object 70000; the ids of a PNG end at 65535"
    ]


def test_a_format_that_cannot_hold_an_id_is_left_out_and_the_others_are_written(tmp_path, capsys):
    sink = JournalSink(tmp_path / "masks.jsonl")
    sink.write(frame(0), one_object(0, 1000))
    sink.close()
    assert ExportCommand(tmp_path, to="mots,davis,coco", output=tmp_path / "out").run() == 5
    assert capsys.readouterr().err == "warning: mots.txt is left out: object 1000 does not fit, MOTS ids end at 999\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["coco.json", "davis"]


def test_place_k_of_a_tube_is_frame_k_of_the_video(tmp_path):
    """Still 2 could not be read and still 5, the last one, neither."""
    sink = JournalSink(tmp_path / "masks.jsonl")
    for index in (0, 1, 3, 4):
        sink.write(frame(index), replace(one_object(index, 1), name=f"{index}.jpg"))
    sink.close()
    (tmp_path / "run.json").write_text(json.dumps({"video": {"codec": "images", "frame_count": 6}}))
    (entry,) = json.loads(exported("ytvis", tmp_path / "masks.jsonl", tmp_path).read_text())
    assert entry["length"] == len(entry["segmentations"]) == 6
    assert entry["file_names"] == ["0.jpg", "1.jpg", None, "3.jpg", "4.jpg", None]
    for index, rle in enumerate(entry["segmentations"]):
        assert (rle is None) == (index in (2, 5))
        assert rle is None or (coco.decode(rle) == square(index, 1)).all()
    (tmp_path / "run.json").unlink()
    (entry,) = json.loads(exported("ytvis", tmp_path / "masks.jsonl", tmp_path).read_text())
    assert entry["length"] == 5


def test_the_timeline_of_the_report_goes_by_frames(tmp_path):
    for name, indices in (("whole", range(10, 20)), ("gap", (10, 11, 12, 19))):
        sink = JournalSink(tmp_path / f"{name}.jsonl")
        for index in indices:
            sink.write(frame(index), replace(one_object(0, 2 if index == 19 else 1), frame_index=index))
        sink.close()
        page = exported("report", tmp_path / f"{name}.jsonl", tmp_path).read_text()
        assert 'viewBox="0 0 10 38"' in page
        assert '<rect x="9" y=' in page  # object 2, on the last frame


def test_labelme(run):
    folder = exported("labelme", run / "masks.jsonl", run)
    record = json.loads((folder / "run_00002.json").read_text())
    assert (record["imageHeight"], record["imageWidth"]) == SIZE
    shapes = {s["group_id"]: s for s in record["shapes"]}
    assert set(shapes) == {1, 2}
    assert (shapes[1]["label"], shapes[2]["label"]) == ("dog", "object 2")
    drawn = cv2.fillPoly(np.zeros(SIZE, np.uint8), [np.array(shapes[1]["points"], np.int32)], 1)
    assert (drawn == square(2, 1)).all()


def test_report_is_self_contained(run):
    thumbnails = ThumbnailSink(spread=4, worst=2)
    for index in range(50):
        thumbnails.write(frame(index), result(index % COUNT))
    spread = [index for index, picture in thumbnails.pictures.items() if not picture.why]
    worst = {index: picture.why for index, picture in thumbnails.pictures.items() if picture.why}
    assert 1 <= len(spread) <= 4 and len(worst) == 2
    assert all(picture.jpeg.startswith(b"\xff\xd8") for picture in thumbnails.pictures.values())
    assert max(thumbnails.pictures) >= 30  # spread over the whole video
    assert all("object" in why for why in worst.values())
    assert abs(max(worst) - min(worst)) >= 10
    config = {"input": "my clip.mp4", "box": ["1@0,0,9,9"], "model": "compact", "tracker": "cutie", "detect_every": 5}
    recording = replace(
        open_recording(run / "masks.jsonl"),
        video="a<b>",
        pictures=thumbnails.pictures,
        manifest={"config": config},
        warnings=["two <frames> are damaged"],
    )
    assert export(recording, run, ["report"]) == []
    page = (run / "report.html").read_text()
    assert "<title>a&lt;b&gt;</title>" in page
    assert page.count("<img") == len(thumbnails.pictures)
    assert page.count("<svg") == 2
    assert "http" not in page
    assert "1 dog" in page
    command = "vidseg run &#x27;my clip.mp4&#x27; --tracker cutie --box 1@0,0,9,9 --detect-every 5"
    assert command in page
    assert "two &lt;frames&gt; are damaged" in page
    assert "overlay.mp4" not in page
    assert len(page.encode()) < 3_000_000
    (run / "overlay.mp4").touch()
    assert 'href="overlay.mp4"' in exported("report", run / "masks.jsonl", run).read_text()
    (run / "elsewhere").mkdir()
    page = exported("report", run / "masks.jsonl", run / "elsewhere").read_text()
    assert "overlay.mp4, in the folder of the run" in page and 'href="overlay.mp4"' not in page


def test_the_report_shows_how_far_masks_can_be_trusted(tmp_path):
    thumbnails, sink = ThumbnailSink(spread=1, worst=1), JournalSink(tmp_path / "masks.jsonl")
    for index in range(COUNT):
        bad = Signals(certainty=0.1, tracker_iou=0.2, hq_iou=0.3) if index == 1 else Signals(since=0)
        masks = replace(result(index), signals=(bad,) * len(result(index).ids))
        thumbnails.write(frame(index), masks)
        sink.write(frame(index), masks)
    sink.close()
    (why,) = (picture.why for picture in thumbnails.pictures.values() if picture.why)
    assert why.endswith(": the tracker is unsure of the outline (certainty 0.10)")
    page = exported("report", tmp_path / "masks.jsonl", tmp_path).read_text()
    visible = [sum(bool(area(rle)) for rle in result(k).rles) for k in range(COUNT)]
    assert page.count('fill="#f04438"') == visible[1]
    assert page.count('fill="#12b76a"') == sum(visible) - visible[1]


def test_overlay_draws_inside_masks_and_keeps_the_rest():
    masks = result(2)
    before = frame(2)
    drawn = draw_masks(before.rgb, masks, OverlayStyle(labels=False))
    assert (before.rgb == 100).all()
    first, second = square(2, 1), square(2, 2)
    inner = cv2.erode(first.astype(np.uint8), np.ones((5, 5))) > 0
    expected = np.round(100 * 0.6 + np.array(color_of(1)) * 0.4)
    assert (np.abs(drawn[inner] - expected) <= 1).all()
    assert (drawn[16:30, 10] == color_of(1)).all()  # the edge
    untouched = ~(cv2.dilate((first | second).astype(np.uint8), np.ones((41, 161))) > 0)
    assert (drawn[untouched] == 100).all()
    hole = np.zeros(SIZE, np.bool_)
    hole[46:49, 86:89] = True
    assert (drawn[hole] == 100).all()


def test_overlay_sink_and_export_of_the_overlay(run, tmp_path):
    video = barcode_video(tmp_path / "v.mp4", COUNT)
    source = open_source(video)
    sink = OverlaySink(tmp_path / "direct.mp4", source.info)
    for picture in source:
        sink.write(picture, result(picture.index))
    sink.close()
    (run / "run.json").write_text(json.dumps({"input": {"path": str(video)}}))
    assert ExportCommand(run, to="overlay,ytvis", output=tmp_path / "exported").run() == 0
    assert (tmp_path / "exported" / "ytvis.json").exists()
    direct, exported = open_source(tmp_path / "direct.mp4"), open_source(tmp_path / "exported" / "overlay.mp4")
    for a, b in zip(direct, exported, strict=True):
        assert (a.rgb == b.rgb).all()
        assert a.pts == b.pts
    assert direct.info.time_base == source.info.time_base


def test_export_command_errors(run, tmp_path):
    with pytest.raises(UsageError, match=r"--to ytviz \(did you mean 'ytvis'\?\)"):
        ExportCommand(run, to="coco,ytviz").run()
    assert not (run / "coco.json").exists()
    with pytest.raises(UsageError, match="--to: name one or more of davis, ytvis, coco"):
        ExportCommand(run, to=" , ").run()
    with pytest.raises(InputError, match=r"contains no masks\.jsonl"):
        ExportCommand(tmp_path, to="coco").run()
    with pytest.raises(InputError, match="give it with --input"):
        ExportCommand(run, to="overlay").run()
    short = barcode_video(tmp_path / "short.mp4", 3)
    with pytest.raises(InputError, match="has no frame 3"):
        ExportCommand(run, to="overlay", input=str(short)).run()


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_export_has_the_name_that_the_layout_gives_it(run, tmp_path):
    for name in WRITERS:
        assert exported(name, run / "masks.jsonl", tmp_path).exists()


def test_an_export_that_fails_changes_nothing(run, tmp_path):
    video, short = barcode_video(tmp_path / "v.mp4", COUNT), barcode_video(tmp_path / "short.mp4", 3)
    assert ExportCommand(run, to="overlay,davis", input=str(video)).run() == 0
    before = contents(run)
    with pytest.raises(InputError, match="has no frame 3"):
        ExportCommand(run, to="overlay", input=str(short)).run()
    assert contents(run) == before
    (run / "masks.jsonl").write_bytes(before["masks.jsonl"] + b"{}\n")
    damaged = contents(run)
    for name in ("davis", "labelme", "ytvis"):
        with pytest.raises(InputError, match="not a line of a masks"):
            ExportCommand(run, to=name, output=tmp_path / "new" / "folder").run()
        with pytest.raises(InputError, match="not a line of a masks"):
            ExportCommand(run, to=name).run()
    assert contents(run) == damaged
    assert not (tmp_path / "new").exists()


def test_an_export_replaces_its_own_files_and_leaves_others(run):
    assert ExportCommand(run, to="davis,coco").run() == 0
    whole = contents(run)
    for name in ("davis/00000.png", "coco.json"):
        (run / name).write_text("old")
    (run / "davis" / "notes.txt").write_text("mine")
    (run / "export.12-0123abcd.part").mkdir()  # of an export that was killed
    assert ExportCommand(run, to="davis,coco").run() == 0
    assert contents(run) == {**whole, "davis/notes.txt": b"mine"}
    assert not list(run.glob("*.part"))


def test_an_export_never_replaces_what_it_reads(run, tmp_path):
    video = barcode_video(run / "overlay.mp4", COUNT)
    (tmp_path / "link").symlink_to(run)
    before = contents(run)
    for folder in (run, tmp_path / "link"):
        with pytest.raises(UsageError, match=r"overlay\.mp4 is an input and would be overwritten by"):
            ExportCommand(run, to="coco,overlay", input=str(video), output=folder).run()
    frames = tmp_path / "clips" / "davis"
    (run / "run.json").write_text(json.dumps({"input": {"path": str(frames)}}))
    frames.mkdir(parents=True)
    with pytest.raises(UsageError, match="davis is an input and would be overwritten by"):
        ExportCommand(run, to="davis", output=tmp_path / "clips").run()  # onto the frames that the run was made of
    assert contents(run) == {**before, "run.json": (run / "run.json").read_bytes()}


def test_an_export_waits_for_nobody(run, tmp_path):
    before = contents(run)
    with claimed(run):
        with pytest.raises(UsageError, match="is in use by another run"):
            ExportCommand(run, to="coco").run()
        assert ExportCommand(run, to="coco", output=tmp_path / "elsewhere").run() == 0
    assert contents(run) == before


@pytest.mark.parametrize("name", ["ytvis", "coco", "coco-results", "mots", "report", "davis", "labelme"])
def test_a_full_disk_leaves_the_old_file_or_none(run, name):
    journal, before = run / "masks.jsonl", (run / "masks.jsonl").read_bytes()
    with file_size_limit(60), pytest.raises(OutputError, match="cannot write"):
        export(open_recording(journal), run, [name])
    assert not [p for p in run.rglob("*") if p.is_file() and p != journal]
    assert journal.read_bytes() == before
    export(open_recording(journal), run, [name])


def test_empty_runs(tmp_path):
    sink = JournalSink(tmp_path / "masks.jsonl")
    for index in range(2):
        nothing = FrameMasks(index, index, 0.0, (), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), (), ())
        sink.write(frame(index), nothing)
    sink.close()
    assert json.loads(exported("ytvis", tmp_path / "masks.jsonl", tmp_path).read_text()) == []
    assert json.loads(exported("coco-results", tmp_path / "masks.jsonl", tmp_path).read_text()) == []
    assert exported("mots", tmp_path / "masks.jsonl", tmp_path).read_bytes() == b""
    assert "2 frames, 0 objects" in exported("report", tmp_path / "masks.jsonl", tmp_path).read_text()
    with pytest.raises(InputError, match="no objects in it"):
        exported("davis", tmp_path / "masks.jsonl", tmp_path)
    assert len(list(read_journal(tmp_path / "masks.jsonl"))) == 2


def test_a_journal_from_a_later_frame_on(tmp_path):
    """Frames 100.. of a long video: names and places follow the index."""
    sink = JournalSink(tmp_path / "masks.jsonl")
    for index in range(100, 103):
        rle = encode(square(0, 1))
        masks = FrameMasks(index, index, 0.0, (1,), bbox(rle)[None], np.ones(1, np.float32), (None,), (rle,))
        sink.write(frame(index), masks)
    sink.close()
    (entry,) = json.loads(exported("ytvis", tmp_path / "masks.jsonl", tmp_path).read_text())
    assert [k for k, rle in enumerate(entry["segmentations"]) if rle] == [100, 101, 102]
    folder = exported("davis", tmp_path / "masks.jsonl", tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == ["00100.png", "00101.png", "00102.png"]


def test_overlay_of_a_video_without_time_base(tmp_path):
    info = VideoInfo(SIZE[1], SIZE[0], Fraction(10))
    sink = OverlaySink(tmp_path / "o.mp4", info)
    for index in range(3):
        picture = Frame(index, index, index / 10, np.zeros((*SIZE, 3), np.uint8))
        sink.write(picture, result(index))
    sink.close()
    assert [f.time_s for f in open_source(tmp_path / "o.mp4")] == pytest.approx([0, 0.1, 0.2])
    assert decode(empty_rle(*SIZE)).sum() == 0


@pytest.mark.parametrize(("kept_bytes", "times"), [(2**24, 1), (0, 2)])
def test_all_formats_read_the_journal_once(tmp_path, monkeypatch, kept_bytes, times):
    """One that is too large to be kept: once for the names of all classes and the length, once for the frames."""
    passes = []
    original = journal_module._whole_lines
    monkeypatch.setattr(journal_module, "_whole_lines", lambda path: passes.append(path) or original(path))
    monkeypatch.setattr(recording_module, "KEPT_BYTES", kept_bytes)
    recording = open_recording(write_run(tmp_path / "run") / "masks.jsonl")
    assert len(passes) == 1
    assert export(recording, tmp_path, list(WRITERS)) == []
    assert len(passes) == times
