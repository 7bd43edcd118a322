"""Formats of labelling tools, read back by readers written from the descriptions of the formats."""

from __future__ import annotations

import io
import json
import zipfile
from fractions import Fraction
from xml.etree import ElementTree

import av
import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from exports import COUNT, SIZE, exported, frame, result, square, write_run
from media import barcode_video
from vidseg.masks import bbox, encode
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.polygons import one_polygon, outline, polygons
from vidseg.outputs import JournalSink, open_recording
from vidseg.outputs.label_studio import brush_rle
from vidseg.outputs.pictures import CutoutSink, CutoutVideoSink, cut_out_objects
from vidseg.types import VideoInfo
from vidseg.video import open_source
from vidseg_pipelines.cli import main
from vidseg_pipelines.commands.export import ExportCommand

VIDEO = {"name": "zoo", "width": SIZE[1], "height": SIZE[0], "codec": "h264", "fps": "25"}


@pytest.fixture
def run(tmp_path):
    """Objects "dog", and an unnamed one with a hole."""
    return write_run(tmp_path / "run", video=VIDEO)


def filled(lines, size=SIZE):
    """Polygons as drawing programs fill them: inside, and what the line itself touches."""
    image = Image.new("1", size[::-1])
    for line in lines:
        ImageDraw.Draw(image).polygon([tuple(corner) for corner in line], fill=1, outline=1)
    return np.array(image, np.bool_)


def inside(corners, size=SIZE):
    """A polygon as a shape, by pycocotools: CVAT and Datumaro make masks of polygons with it."""
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([corners], *size))).astype(np.bool_)


@st.composite
def blobs(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = rng.standard_normal((draw(st.integers(20, 90)), draw(st.integers(20, 90)))).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), draw(st.floats(2, 8)))
    return smooth > np.quantile(smooth, draw(st.floats(0.2, 0.9)))


@settings(max_examples=40, deadline=None)
@given(mask=blobs())
def test_polygons_keep_holes_and_parts(mask):
    lines = [line.astype(np.int32) for line in polygons(encode(mask))]
    drawn = sum((cv2.fillPoly(np.zeros(mask.shape, np.uint8), [line], 1) for line in lines), np.zeros(mask.shape)) > 0
    edge = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)))
    wrong = drawn != mask
    assert wrong.sum() <= 0.2 * (edge > 0).sum()
    assert not (wrong & (cv2.dilate(edge, np.ones((3, 3))) == 0)).any()


@settings(max_examples=40, deadline=None)
@given(mask=blobs())
def test_what_an_outline_encloses_is_the_mask(mask):
    found = inside(outline(encode(mask)).ravel().tolist(), mask.shape)
    assert (found & mask).sum() >= 0.9 * (found | mask).sum()
    edge = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)))
    assert ((found != mask) <= (edge > 0)).all()
    assert found.sum() == pytest.approx(mask.sum(), rel=0.05, abs=6), "neither smaller nor larger"


def test_small_and_empty_masks_are_polygons_too():
    dot = np.zeros((9, 9), np.bool_)
    assert len(one_polygon(encode(dot))) == 0
    assert len(outline(encode(dot))) == 0
    dot[4, 2:5] = True
    assert (inside(outline(encode(dot)).ravel().tolist(), dot.shape) == dot).all()
    assert (filled(polygons(encode(dot)), dot.shape) == dot).all()
    assert all(len(line) >= 3 for line in polygons(encode(dot)))
    dot[7, 7] = True
    assert len(polygons(encode(dot))) == 2
    assert (filled([one_polygon(encode(dot))], dot.shape) & dot == dot).all()


def test_cvat_has_a_track_per_object_that_says_when_it_is_absent(run):
    folder = exported("cvat", run / "masks.jsonl", run, names={1: 'a <"dog"> & 熊'})
    root = ElementTree.fromstring((folder / "annotations.xml").read_bytes())
    assert root.findtext("version") == "1.1"
    assert [label.text for label in root.iterfind("meta/task/labels/label/name")] == ['a <"dog"> & 熊', "object"]
    assert root.findtext("meta/task/size") == str(COUNT)
    tracks = {int(track.get("group_id")): track for track in root.iterfind("track")}
    assert {i: track.get("label") for i, track in tracks.items()} == {1: 'a <"dog"> & 熊', 2: "object"}
    for object_id, track in tracks.items():
        shown = {int(shape.get("frame")): shape for shape in track if shape.get("outside") == "0"}
        absent = [int(shape.get("frame")) for shape in track if shape.get("outside") == "1"]
        assert sorted(shown) == [k for k in range(COUNT) if square(k, object_id).any()]
        assert absent == ([] if object_id == 1 else [3])
        for index, shape in shown.items():
            corners = [float(v) for pair in shape.get("points").split(";") for v in pair.split(",")]
            assert (inside(corners) == square(index, object_id)).all()
    labels = json.loads((folder / "labels.json").read_text())
    assert [label["name"] for label in labels] == ['a <"dog"> & 熊', "object"]
    assert len({label["color"] for label in labels}) == 2


def test_a_track_of_cvat_ends_where_the_object_goes(tmp_path):
    sink = JournalSink(tmp_path / "masks.jsonl")
    for index in range(4):
        masks = (
            result(index) if index < 2 else FrameMasks(index, index, 0.0, (), *(np.zeros((0, 4)), np.zeros(0)), (), ())
        )
        sink.write(frame(index), masks)
    sink.close()
    root = ElementTree.parse(exported("cvat", tmp_path / "masks.jsonl", tmp_path) / "annotations.xml")
    track = root.find("track")
    assert [(shape.get("frame"), shape.get("outside")) for shape in track] == [("0", "0"), ("1", "0"), ("2", "1")]


def test_mots_png_is_a_zip_of_16_bit_pictures_and_labels(run):
    with zipfile.ZipFile(exported("mots-png", run / "masks.jsonl", run)) as archive:
        names = archive.namelist()
        assert names == ["train/instances/labels.txt", *(f"train/instances/frame_{k:06d}.png" for k in range(COUNT))]
        assert archive.read(names[0]).decode().splitlines() == ["dog", "object"]
        for index in range(COUNT):
            picture = Image.open(io.BytesIO(archive.read(names[index + 1])))
            assert picture.mode == "I;16"
            assert (np.asarray(picture) == 1001 * square(index, 1) + 2002 * square(index, 2)).all()


def test_mots_png_leaves_out_what_no_16_bits_hold(tmp_path, capsys):
    sink = JournalSink(tmp_path / "masks.jsonl")
    for index, object_id in enumerate((999, 1000)):
        rle = encode(square(index, 1))
        label = ("dog",)
        sink.write(
            frame(index), FrameMasks(index, index, 0.0, (object_id,), bbox(rle)[None], np.ones(1), label, (rle,))
        )
    sink.close()
    assert ExportCommand(tmp_path, to="mots-png").run() == 5
    assert capsys.readouterr().err.startswith("warning: mots-png: object 1000 is left out: 2000 is no number of")
    with zipfile.ZipFile(tmp_path / "mots.zip") as archive:
        assert np.unique(np.asarray(Image.open(archive.open("train/instances/frame_000000.png")))).tolist() == [0, 1999]
        assert not np.asarray(Image.open(archive.open("train/instances/frame_000001.png"))).any()


def brush_mask(packed, height, width):
    """The mask of Label Studio's brush, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in packed)
    place = 0

    def take(count):
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    count, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        same = take(1)
        length = take(sizes[take(2)]) + 1
        values += [take(word)] * length if same else [take(word) for _ in range(length)]
    picture = np.array(values).reshape(height, width, 4)
    assert (picture == picture[..., :1]).all()
    return picture[..., 3] > 0


@settings(max_examples=20, deadline=None)
@given(mask=blobs())
def test_the_brush_of_label_studio_holds_every_pixel(mask):
    assert (brush_mask(brush_rle(mask), *mask.shape) == mask).all()


def test_long_runs_of_the_brush():
    mask = np.zeros((300, 400), np.bool_)
    assert not brush_mask(brush_rle(mask), *mask.shape).any()
    mask[100:250] = True
    assert (brush_mask(brush_rle(mask), *mask.shape) == mask).all()


def test_label_studio_tasks(run):
    folder = exported("label-studio", run / "masks.jsonl", run, names={2: 'a "b" <c>'})
    config = ElementTree.parse(folder / "config.xml")
    names = [label.get("value") for label in config.iterfind("BrushLabels/Label")]
    assert names == ['a "b" <c>', "dog"]
    tasks = json.loads((folder / "tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [
        f"/data/local-files/?d=frames/zoo_{k:05d}.jpg" for k in range(COUNT)
    ]
    for index, task in enumerate(tasks):
        (prediction,) = task["predictions"]
        shown = {entry["id"]: entry for entry in prediction["result"]}
        assert sorted(shown) == [f"{index}-{i}" for i in (1, 2) if square(index, i).any()]
        for key, entry in shown.items():
            assert (entry["from_name"], entry["to_name"]) == ("label", "image")
            assert entry["value"]["brushlabels"][0] in names
            mask = brush_mask(entry["value"]["rle"], entry["original_height"], entry["original_width"])
            assert (mask == square(index, int(key.partition("-")[2]))).all()


def test_yolo_by_the_rules_of_its_loader(run, tmp_path):
    video = barcode_video(tmp_path / "zoo.mp4", COUNT)
    classes = tmp_path / "classes.txt"
    classes.write_text("ant\nobject\ndog\n")
    assert ExportCommand(run, "yolo", input=str(video), classes=classes).run() == 0
    data = yaml.safe_load((run / "yolo" / "data.yaml").read_text())
    assert data["names"] == {0: "ant", 1: "object", 2: "dog"}
    pictures = sorted((run / "yolo" / data["train"]).iterdir())
    assert [path.name for path in pictures] == [f"zoo_{k:05d}.jpg" for k in range(COUNT)]
    height, width = np.asarray(Image.open(pictures[0])).shape[:2]
    assert (height, width) == SIZE
    for index, picture in enumerate(pictures):
        text = (run / "yolo" / "labels" / "train" / f"{picture.stem}.txt").read_text()  # "images" becomes "labels"
        shown = {}
        for line in text.splitlines():
            kind, *numbers = line.split()
            corners = np.array(numbers, np.float32).reshape(-1, 2)
            assert len(corners) >= 3 and corners.min() >= 0 and corners.max() <= 1
            shown[int(kind)] = cv2.fillPoly(np.zeros(SIZE, np.uint8), [(corners * (width, height)).astype(np.int32)], 1)
        assert set(shown) == {k for k, i in ((2, 1), (1, 2)) if square(index, i).any()}
        assert all((mask == square(index, {2: 1, 1: 2}[kind])).all() for kind, mask in shown.items())


def test_labelme_keeps_holes_and_has_its_pictures(run, tmp_path):
    video = barcode_video(tmp_path / "zoo.mp4", COUNT)
    assert ExportCommand(run, "labelme", input=str(video)).run() == 0
    for index in range(COUNT):
        record = json.loads((run / "labelme" / f"zoo_{index:05d}.json").read_text())
        assert Image.open(run / "labelme" / record["imagePath"]).size == (record["imageWidth"], record["imageHeight"])
        for object_id, label in ((1, "dog"), (2, "object 2")):
            shapes = [shape for shape in record["shapes"] if shape["group_id"] == object_id]
            assert all(shape["label"] == label for shape in shapes)
            assert (filled([shape["points"] for shape in shapes]) == square(index, object_id)).all()


def test_labelme_files_have_all_that_its_reader_asks_for(run, tmp_path):
    """What LabelMe 6.3 refuses otherwise; keys that it does not know it keeps."""
    video = barcode_video(tmp_path / "zoo.mp4", COUNT)
    assert ExportCommand(run, "labelme", input=str(video)).run() == 0
    files = sorted((run / "labelme").glob("*.json"))
    assert len(files) == COUNT
    for path in files:
        record = json.loads(path.read_text("utf-8"))
        assert record["imageData"] is None  # the key is required; the picture is then read from imagePath
        assert Image.open(path.parent / record["imagePath"]).size == (record["imageWidth"], record["imageHeight"])
        assert isinstance(record["flags"], dict)
        for shape in record["shapes"]:
            assert isinstance(shape["label"], str)
            assert (shape["shape_type"], shape["flags"]) == ("polygon", {})
            assert type(shape["group_id"]) is int
            assert len(shape["points"]) >= 3
            assert all(len(corner) == 2 and {type(v) for v in corner} <= {int, float} for corner in shape["points"])


def test_cvat_and_mots_files_have_all_that_the_readers_of_datumaro_ask_for(run):
    """What Datumaro 1.13 fails on otherwise."""
    root = ElementTree.parse(exported("cvat", run / "masks.jsonl", run) / "annotations.xml").getroot()
    assert (root.tag, root.find("meta/project")) == ("annotations", None)
    size = root.find("meta/task/original_size")
    assert [int(size.findtext(name)) for name in ("height", "width")] == list(SIZE)
    labels = [label.findtext("name") for label in root.iter("label")]
    assert len(labels) == len(set(labels))
    for track in root.iterfind("track"):
        assert track.get("label") in labels
        assert int(track.get("id")) >= 0 and int(track.get("group_id")) > 0
        for shape in track:
            corners = [tuple(map(float, pair.split(","))) for pair in shape.get("points").split(";")]
            assert len(corners) >= 3 and {len(corner) for corner in corners} == {2}
            assert {shape.get(name) for name in ("outside", "keyframe", "occluded")} <= {"0", "1"}
            assert (int(shape.get("z_order")), int(shape.get("frame")) < COUNT) == (0, True)
    with zipfile.ZipFile(exported("mots-png", run / "masks.jsonl", run)) as archive:
        classes = len(archive.read("train/instances/labels.txt").decode().split())
        for name in archive.namelist()[1:]:
            folder, kind, file = name.split("/")
            assert (folder, kind, file.endswith(".png")) == ("train", "instances", True)
            numbers = np.unique(np.asarray(Image.open(archive.open(name))))
            assert all(1 <= n // 1000 <= classes and n % 1000 for n in numbers if n)


def test_without_the_video_the_polygons_are_written_and_the_exit_code_is_5(run, capsys):
    (run / "run.json").write_text(json.dumps({"video": VIDEO, "input": {"path": str(run / "gone.mp4")}}))
    assert ExportCommand(run, "labelme,yolo,cvat").run() == 5
    assert "labelme, yolo: without the frames' images" in capsys.readouterr().err
    assert len(list((run / "labelme").iterdir())) == COUNT


def test_pictures_of_stills_are_the_stills(tmp_path):
    stills = tmp_path / "stills"
    stills.mkdir()
    names = [f"IMG {k}.png" for k in range(COUNT)]
    for k, name in enumerate(names):
        Image.fromarray(frame(k).rgb + k).save(stills / name)
    run = write_run(
        tmp_path / "run", video={**VIDEO, "codec": "images", "frame_count": COUNT}, input={"path": str(stills)}
    )
    lines = [json.loads(line) for line in (run / "masks.jsonl").read_text().splitlines()]
    named = [json.dumps({**line, "name": name}) for line, name in zip(lines, names, strict=True)]
    (run / "masks.jsonl").write_text("\n".join(named) + "\n")
    assert open_recording(run / "masks.jsonl").stills == stills
    assert ExportCommand(run, "frames,labelme,cutout,mots-png").run() == 0
    for name in names:
        assert (run / "frames" / name).read_bytes() == (stills / name).read_bytes()
    assert json.loads((run / "labelme" / "IMG 2.json").read_text())["imagePath"] == "IMG 2.png"
    assert (run / "cutout" / "IMG 2.png").is_file()
    assert "train/instances/IMG 2.png" in zipfile.ZipFile(run / "mots.zip").namelist()


def test_cut_outs_have_soft_edges(tmp_path):
    sink = CutoutSink(tmp_path / "cutout", "zoo")
    sink.write(frame(2), result(2))
    picture = np.asarray(Image.open(tmp_path / "cutout" / "zoo_00002.png"))
    assert picture.shape == (*SIZE, 4)
    inside = square(2, 1) | square(2, 2)
    deep = cv2.erode(inside.astype(np.uint8), np.ones((9, 9))) > 0
    assert (picture[deep] == (100, 100, 100, 255)).all()
    assert not picture[cv2.dilate(inside.astype(np.uint8), np.ones((9, 9))) == 0].any()
    assert len(np.unique(picture[..., 3])) > 4


def test_a_cut_out_video_is_transparent(run, tmp_path):
    video = barcode_video(tmp_path / "zoo.mp4", COUNT)
    assert ExportCommand(run, "cutout-webm", input=str(video)).run() == 0
    with av.open(str(run / "cutout.webm")) as container:
        stream = container.streams.video[0]
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        pictures = [f for packet in container.demux(stream) for f in decoder.decode(packet)]
    assert len(pictures) == COUNT
    for index, (picture, source) in enumerate(zip(pictures, open_source(video), strict=True)):
        assert picture.format.name == "yuva420p"
        alpha = picture.to_ndarray(format="rgba")[..., 3].astype(int)
        assert np.abs(alpha - cut_out_objects(source.rgb, result(index))[..., 3]).mean() < 4


def test_a_cut_out_video_that_got_no_frame_hides_no_other_error(tmp_path):
    sink = CutoutVideoSink(tmp_path / "cutout.webm", VideoInfo(64, 48, Fraction(25)))
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_objects_that_a_run_does_not_have_are_named(run, capsys):
    before = sorted(run.iterdir())
    assert main(["export", str(run), "--to", "coco", "--objects", "8,9"]) == 2
    assert capsys.readouterr().err == "vidseg: --objects 8,9: the run has none of them\n"
    assert sorted(run.iterdir()) == before
    assert main(["export", str(run), "--to", "coco", "--objects", "1,9", "--label", "1=a"]) == 0
    assert capsys.readouterr().err == "note: --objects 9: the run has no object 9\n"
    assert main(["export", str(run), "--to", "coco", "--label", "8=x"]) == 0
    assert capsys.readouterr().err == "note: --label 8: the run has no object 8\n"


def test_only_some_objects(run):
    assert ExportCommand(run, "coco-results,mots-png", objects="2").run() == 0
    assert {e["track_id"] for e in json.loads((run / "coco_results.json").read_text())} == {2}
