"""Labels of other tools as prompts: what vidseg exports comes back, and what people label there is understood."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exports import COUNT, SIZE, exported, square, write_run
from toys import KeepMasks, frames, tiny_sam
from vidseg import read_run, segment_video
from vidseg.annotations import READERS, read_annotations
from vidseg.errors import InputError, UsageError
from vidseg.types import Prompt, VideoInfo
from vidseg_pipelines import build
from vidseg_pipelines.cli import main

VIDEO = {"name": "zoo", "width": SIZE[1], "height": SIZE[0], "codec": "h264", "fps": "25"}
INFO = VideoInfo(SIZE[1], SIZE[0], Fraction(25), COUNT, frames_are_listed=True, name="zoo")
NAMES = tuple(f"{index:05d}.jpg" for index in range(COUNT))
STILLS = replace(INFO, frame_names=NAMES)
FILES = {"labelme": "labelme", "cvat": "cvat/annotations.xml", "coco": "coco.json", "datumaro": "datumaro"}


def found(prompts: list[Prompt]) -> dict[tuple[int, int], Prompt]:
    return {(prompt.frame_index, prompt.object_id): prompt for prompt in prompts}


@pytest.mark.parametrize("name", READERS)
def test_what_is_exported_comes_back_with_ids_and_names(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run", video=VIDEO)
    exported(name, run / "masks.jsonl", run)
    prompts, notes = read_annotations(name, run / FILES[name], INFO)
    expected = {(k, i): square(k, i) for k in range(COUNT) for i in (1, 2) if square(k, i).any()}
    assert found(prompts).keys() == expected.keys()
    for place, prompt in found(prompts).items():
        assert prompt.mask is not None and (prompt.mask == expected[place]).all(), "the hole of object 2 too"
        assert prompt.label == {1: "dog", 2: None}[prompt.object_id]
    assert notes == []


@pytest.mark.parametrize("name", READERS)
def test_only_the_frames_of_a_run_are_read(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run", video=VIDEO)
    exported(name, run / "masks.jsonl", run)
    prompts, _ = read_annotations(name, run / FILES[name], INFO, (1, 3))
    assert {prompt.frame_index for prompt in prompts} == {1, 2}
    with pytest.raises(InputError, match=r"nothing is labelled in --frames 50:"):
        read_annotations(name, run / FILES[name], replace(INFO, frame_count=100), (50, None))
    with pytest.raises(InputError, match=r"the frames are 32x24"):
        read_annotations(name, run / FILES[name], replace(INFO, width=32, height=24))


def labelme(folder: Path, shapes: dict[str, list[dict[str, Any]]]) -> Path:
    """A folder of LabelMe: shapes by the name of the picture."""
    folder.mkdir(exist_ok=True)
    for name, row in shapes.items():
        record = {"imagePath": f"..\\pictures\\{name}", "imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": row}
        (folder / name).with_suffix(".json").write_text(json.dumps(record))
    return folder


def polygon(label: str, x: float, y: float, group: int | None = None) -> dict[str, Any]:
    corners = [[x, y], [x + 9, y], [x + 9, y + 9], [x, y + 9]]
    return {"label": label, "points": corners, "group_id": group, "shape_type": "polygon"}


def test_shapes_of_labelme_are_masks_boxes_and_clicks(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).save(png, "PNG")
    folder = labelme(
        tmp_path / "labels",
        {
            NAMES[1]: [
                polygon("dog", 10, 10, 4),
                polygon("dog", 30, 10, 4),
                {"label": "cat", "points": [[60, 50], [40, 30]], "shape_type": "rectangle"},
                {"label": "ball", "points": [[90, 20], [95, 20]], "shape_type": "circle"},
                {"label": "tip", "points": [[7.5, 60]], "shape_type": "point"},
                {
                    "label": "line",
                    "points": [[100, 40], [104, 44]],
                    "shape_type": "mask",
                    "mask": base64.b64encode(png.getvalue()).decode(),
                },
            ],
            NAMES[2]: [],
        },
    )
    prompts, _ = read_annotations("labelme", folder, STILLS)
    by_name = {prompt.label: prompt for prompt in prompts}
    assert {name: prompt.object_id for name, prompt in by_name.items()} == {
        **{"dog": 4, "cat": 1, "ball": 2, "tip": 3, "line": 5}
    }
    assert by_name["cat"].box == (40, 30, 60, 50) and by_name["tip"].points == ((7.5, 60),)
    dog, ball, line = (by_name[name].mask for name in ("dog", "ball", "line"))
    assert dog is not None and dog.sum() == 200 and dog[10:20, 10:20].all() and dog[10:20, 30:40].all()
    assert ball is not None and ball.sum() == pytest.approx(np.pi * 25, abs=6) and ball[20, 90]
    assert line is not None and (np.argwhere(line) == [[40 + k, 100 + k] for k in range(4)]).all()


def test_a_name_is_one_object_where_no_frame_has_two_of_it(tmp_path: Path) -> None:
    folder = labelme(
        tmp_path / "one",
        {NAMES[0]: [polygon("dog", 5, 5), polygon("cat", 30, 5)], NAMES[4]: [polygon("dog", 20, 5)]},
    )
    prompts, _ = read_annotations("labelme", folder, STILLS)
    assert [(p.frame_index, p.object_id, p.label) for p in prompts] == [(0, 1, "dog"), (0, 2, "cat"), (4, 1, "dog")]
    folder = labelme(tmp_path / "many", {NAMES[0]: [polygon("dog", 5, 5), polygon("dog", 30, 5)]})
    assert [p.object_id for p in read_annotations("labelme", folder, STILLS)[0]] == [1, 2]
    labelme(folder, {NAMES[4]: [polygon("dog", 20, 5)]})
    with pytest.raises(InputError, match=r"which 'dog' is it\? .*Group ID"):
        read_annotations("labelme", folder, STILLS)


def test_numbers_that_begin_at_0_are_counted_from_1(tmp_path: Path) -> None:
    folder = labelme(tmp_path / "labels", {NAMES[0]: [polygon("dog", 5, 5, 0), polygon("cat", 30, 5, 1)]})
    assert [p.object_id for p in read_annotations("labelme", folder, STILLS)[0]] == [1, 2]


def test_labels_of_other_pictures_are_a_note(tmp_path: Path) -> None:
    folder = labelme(tmp_path / "labels", {NAMES[0]: [polygon("dog", 5, 5)], "other.jpg": [polygon("dog", 5, 5)]})
    prompts, (note,) = read_annotations("labelme", folder, STILLS)
    assert len(prompts) == 1
    assert note.endswith("other.jpg is no frame of zoo")


def xml(body: str, size: tuple[int, int] = SIZE) -> str:
    return (
        f"<annotations><version>1.1</version><meta><job><original_size><width>{size[1]}</width><height>{size[0]}"
        f"</height></original_size></job></meta>{body}</annotations>"
    )


def test_key_frames_of_cvat_are_prompts(tmp_path: Path) -> None:
    file = tmp_path / "annotations.xml"
    file.write_text(
        xml(
            '<track id="7" label="dog" source="manual">'
            '<box frame="0" outside="0" occluded="0" keyframe="1" xtl="1.5" ytl="2" xbr="30" ybr="40"/>'
            '<box frame="1" outside="0" occluded="0" keyframe="0" xtl="9" ytl="2" xbr="30" ybr="40"/>'
            '<polygon frame="3" outside="0" keyframe="1" points="10.00,10.00;20.00,10.00;20.00,20.00;10.00,20.00"/>'
            '<polygon frame="4" outside="1" keyframe="1" points="10,10;20,10;20,20;10,20"/></track>'
            '<track id="8" label="cat"><mask frame="2" outside="0" keyframe="1" rle="1, 2, 3" left="4" top="5"'
            ' width="3" height="2"/><points frame="3" outside="0" keyframe="1" points="50.5,40;52,41"/>'
            '<ellipse frame="5" outside="0" keyframe="1" cx="50" cy="30" rx="20" ry="10"/></track>'
        )
    )
    prompts = found(read_annotations("cvat", file, STILLS)[0])
    assert prompts.keys() == {(0, 1), (3, 1), (2, 2), (3, 2), (5, 2)}
    assert prompts[0, 1].box == (1.5, 2, 30, 40) and prompts[0, 1].label == "dog"
    square_, runs, oval = (prompts[place].mask for place in ((3, 1), (2, 2), (5, 2)))
    assert square_ is not None and square_.sum() == 100 and square_[10:20, 10:20].all()
    assert runs is not None and np.argwhere(runs).tolist() == [[5, 5], [5, 6]]
    assert oval is not None and oval.sum() == pytest.approx(np.pi * 200, rel=0.03)
    assert prompts[3, 2].points == ((50.5, 40.0), (52.0, 41.0))


def test_the_folder_of_an_export_to_cvat_stands_for_its_file(tmp_path: Path) -> None:
    (tmp_path / "annotations.xml").write_text(
        xml('<track label="a"><box frame="1" xtl="1" ytl="1" xbr="9" ybr="9"/></track>')
    )
    assert [p.box for p in read_annotations("cvat", tmp_path, STILLS)[0]] == [(1, 1, 9, 9)]
    with pytest.raises(InputError, match=r"none/annotations\.xml: file not found"):
        (tmp_path / "none").mkdir()
        read_annotations("cvat", tmp_path / "none", STILLS)


def test_images_of_cvat_are_found_by_name(tmp_path: Path) -> None:
    file = tmp_path / "annotations.xml"
    shape = '<polygon label="dog" points="10,10;20,10;20,20"/>'
    file.write_text(xml(f'<image id="0" name="day/{NAMES[2]}" width="{SIZE[1]}" height="{SIZE[0]}">{shape}</image>'))
    assert [p.frame_index for p in read_annotations("cvat", file, STILLS)[0]] == [2]
    assert [p.frame_index for p in read_annotations("cvat", file, replace(INFO, name="film"))[0]] == [0]


def coco(path: Path, annotations: list[dict[str, Any]], **more: Any) -> Path:
    images = [{"id": 10 + k, "file_name": n, "width": SIZE[1], "height": SIZE[0]} for k, n in enumerate(NAMES)]
    rows = [{"id": k, "image_id": 10, "category_id": 3, **row} for k, row in enumerate(annotations, 1)]
    path.write_text(
        json.dumps({"images": images, "categories": [{"id": 3, "name": "dog"}], "annotations": rows, **more})
    )
    return path


def test_annotations_of_coco_are_polygons_runs_or_boxes(tmp_path: Path) -> None:
    mask = square(0, 1)
    counts = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=False, append=False)), prepend=0).tolist()
    counts.append(mask.size - sum(counts))
    corners = [[10, 10, 20, 10, 20, 20, 10, 20], [40, 10, 50, 10, 50, 20, 40, 20]]
    file = coco(
        tmp_path / "coco.json",
        [
            {"segmentation": corners, "attributes": {"track_id": 5}},
            {"segmentation": {"size": list(SIZE), "counts": counts}, "track_id": 6, "image_id": 11},
            {"bbox": [5, 6, 20, 30], "track_id": 5, "image_id": 12},
            {"segmentation": {"size": list(SIZE), "counts": counts}, "iscrowd": 1, "track_id": 9},
        ],
    )
    prompts = found(read_annotations("coco", file, STILLS)[0])
    assert prompts.keys() == {(0, 5), (1, 6), (2, 5)}
    assert {prompt.label for prompt in prompts.values()} == {"dog"}
    parts, runs = prompts[0, 5].mask, prompts[1, 6].mask
    assert parts is not None and parts.sum() == 200 and parts[10:20, 40:50].all()
    assert runs is not None and (runs == mask).all()
    assert prompts[2, 5].box == (5, 6, 25, 36)


def test_of_several_videos_in_coco_that_of_the_name_is_read(tmp_path: Path) -> None:
    videos = [{"id": 1, "name": "farm"}, {"id": 2, "name": "zoo"}]
    images = [{"id": k, "file_name": f"{k}.jpg", "video_id": k, "frame_id": 3} for k in (1, 2)]
    row = {"segmentation": [[10, 10, 20, 10, 20, 20]], "image_id": 2}
    file = coco(tmp_path / "coco.json", [row], videos=videos, images=images)
    assert [p.frame_index for p in read_annotations("coco", file, INFO)[0]] == [3]
    with pytest.raises(InputError, match=r"of its 2 videos \(farm, zoo\) 0 are called other"):
        read_annotations("coco", file, replace(INFO, name="other"))


def datumaro(folder: Path, annotations: list[dict[str, Any]]) -> Path:
    """A project with a data set in it."""
    (folder / "source-1" / "annotations").mkdir(parents=True)
    labels = {"label": {"labels": [{"name": "dog", "parent": ""}]}}
    item = {"id": "day/00002", "annotations": annotations, "image": {"path": "day/00002.jpg", "size": list(SIZE)}}
    data = {"categories": labels, "items": [item]}
    (folder / "source-1" / "annotations" / "train.json").write_text(json.dumps(data))
    return folder


def test_annotations_of_datumaro_are_shapes(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"type": "polygon", "label_id": 0, "points": [10, 10, 20, 10, 20, 20, 10, 20], "attributes": {"track_id": 3}},
        {"type": "polygon", "label_id": 0, "points": [40, 10, 50, 10, 50, 20, 40, 20], "attributes": {"track_id": 3}},
        {"type": "bbox", "label_id": 0, "bbox": [60, 10, 20, 30], "attributes": {"track_id": 4}},
        {"type": "label", "label_id": 0},
    ]
    prompts = found(read_annotations("datumaro", datumaro(tmp_path / "project", rows), STILLS)[0])
    assert prompts.keys() == {(2, 3), (2, 4)}
    mask = prompts[2, 3].mask
    assert mask is not None and mask.sum() == 200
    assert prompts[2, 4].box == (60, 10, 80, 40)


DOG = polygon("dog", 5, 5, 1)
BAD: list[tuple[str, Any, str]] = [
    ("labelme", None, "no such folder"),
    ("labelme", {}, r"no \.json in it"),
    ("labelme", {"x.jpg": [DOG]}, r"x\.jpg is no frame of zoo \(its frames: the first one is 00000\.jpg\)"),
    ("labelme", {NAMES[0]: []}, "nothing is labelled in it"),
    ("labelme", {NAMES[0]: [DOG | {"label": "cat", "shape_type": "line"}]}, "a 'line' has no inside"),
    ("labelme", {NAMES[0]: [DOG | {"points": [[1, 2]]}]}, "3 or more points"),
    ("labelme", {NAMES[0]: [DOG | {"points": [[1, 2], [3, "a"]]}]}, "pairs x, y"),
    ("labelme", {NAMES[0]: [DOG | {"group_id": "a"}]}, "group_id 'a'"),
    ("labelme", {NAMES[0]: [DOG, polygon("cat", 30, 5, 1)]}, "object 1 is 'cat' here and 'dog' in .*shape 1"),
    ("labelme", {NAMES[0]: [polygon("dog", 500, 500)]}, "no pixel in the frame"),
    ("labelme", {NAMES[0]: [DOG, DOG | {"shape_type": "rectangle", "points": [[1, 2], [9, 9]]}]}, "do not go together"),
    ("labelme", {NAMES[0]: [DOG | {"group_id": -1}]}, "not negative"),
    ("labelme", {NAMES[0]: [DOG | {"shape_type": "mask", "points": [[1, 1], [3, 3]], "mask": "no"}]}, "not a PNG"),
    ("labelme", "{}", "not a file of LabelMe"),
    ("cvat", None, "file not found"),
    ("cvat", "text", "not XML"),
    ("cvat", "<html/>", "not a file of CVAT"),
    ("cvat", xml(""), "nothing is labelled in it"),
    ("cvat", xml('<track label="a"><box frame="b"/></track>'), "frame='b': a number expected"),
    ("cvat", xml('<track label="a"><box frame="90"/></track>'), r"frame 90 is no frame of zoo"),
    ("cvat", xml('<track label="a"><box frame="1" xtl="1"/></track>'), "a on frame 1: ytl='': a number expected"),
    ("cvat", xml('<track label="a"><skeleton frame="1"/></track>'), "a skeleton has no inside"),
    ("cvat", xml('<track label="a"><box frame="1" rotation="12.5"/></track>'), "a turned box"),
    (
        "cvat",
        xml('<track label="a"><mask frame="1" rle="1,2" left="0" top="0" width="5" height="5"/></track>'),
        "run-lengths do not fit",
    ),
    (
        "cvat",
        xml('<track label="a"><points frame="1" points="1,2"/><points frame="1" points="1,2"/></track>'),
        "object 1 is also .*: one number, two objects",
    ),
    ("coco", "{", "not JSON"),
    ("coco", "[]", r"give the data set \(coco\.json\)"),
    ("coco", "{}", "not a COCO data set"),
    ("coco", [{"segmentation": [[1, 2, 3]]}], "annotation 1: points expected as pairs"),
    ("coco", [{"segmentation": {"size": [4, 4], "counts": [16]}}], "the mask is 4x4, the frames are 120x64"),
    ("coco", [{"segmentation": {"size": [4, 4]}}], "RLE: expected"),
    ("coco", [{"segmentation": "a"}], "a list of polygons or run-lengths"),
    ("coco", [{}], "annotation 1: .*points"),
    ("coco", [{"bbox": [1, 2, 3, 4], "track_id": 1}] * 2, "annotation 2: object 1 is also .*annotation 1"),
    ("coco", [{"bbox": [1, 2, 3, 4], "track_id": 1.5}], "track_id '1.5'"),
    ("datumaro", None, r"no annotations/\*\.json in it"),
    ("datumaro", [{"type": "polyline", "points": [1, 2, 3, 4]}], "a 'polyline' has no inside"),
    ("datumaro", "[]", "not a data set of Datumaro"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = tmp_path / "labels"
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, dict):
        labelme(path, content)
    elif content is not None:
        (coco if name == "coco" else datumaro)(path, content)
    with pytest.raises(InputError, match=message) as error:
        read_annotations(name, path, STILLS)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: tiny_sam())
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: KeepMasks())
    folder = tmp_path / "pictures"
    folder.mkdir()
    for frame, name in zip(frames(COUNT, *SIZE), NAMES, strict=True):
        Image.fromarray(frame.rgb).save(folder / name)
    return folder


def test_a_folder_labelled_on_some_frames_is_followed_to_all(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    labels = labelme(
        pictures.parent / "labels",
        {NAMES[0]: [polygon("dog", 5, 5)], NAMES[3]: [polygon("dog", 40, 30), polygon("cat", 80, 5)]},
    )
    out = pictures.parent / "out"
    command = ["run", str(pictures), "--from", "labelme", str(labels), "--output", str(out), "--save", "labelme"]
    assert main([*command, "--refine", "none"]) == 0
    shown = [dict(zip(masks.labels, masks.masks, strict=True)) for masks in read_run(out)]
    assert [sorted(frame) for frame in shown] == [["dog"]] * 3 + [["cat", "dog"]] * 3
    assert shown[2]["dog"][5:15, 5:15].all() and shown[5]["dog"][30:40, 40:50].all() and shown[5]["cat"].sum() == 100
    prompts, _ = read_annotations("labelme", out / "labelme", STILLS)
    assert {prompt.label for prompt in prompts} == {"dog", "cat"}
    assert json.loads((out / "run.json").read_text())["prompts"].keys() == {str(labels)}
    assert main([*command, "--refine", "none", "--resume"]) == 0
    labelme(labels, {NAMES[0]: [polygon("dog", 6, 5)]})
    assert main([*command, "--refine", "none", "--resume"]) == 2
    assert "made differently (prompts." in capsys.readouterr().err


def test_a_run_of_labels_is_corrected(pictures: Path) -> None:
    labels = labelme(pictures.parent / "labels", {NAMES[0]: [polygon("dog", 5, 5, 3)]})
    out = pictures.parent / "out"
    settings: dict[str, Any] = {"refine": "none", "save": "none"}
    segment_video(pictures, out, from_=("labelme", labels), **settings)
    segment_video("", out, continue_=True, box="2:60,10,90,40", **settings)
    assert [masks.ids for masks in read_run(out)] == [(3,)] * 2 + [(3, 4)] * 4
    with pytest.raises(UsageError, match=r"--continue: --from \['coco', .*was made with"):
        segment_video("", out, continue_=True, from_=("coco", labels), **settings)


def test_an_unknown_format_is_refused_before_anything_is_opened(capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "missing.mp4", "--from", "lableme", "labels"]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith("--from lableme (did you mean 'labelme'?): allowed are labelme, cvat, coco, datumaro")
    )


def test_a_configuration_file_says_from(pictures: Path) -> None:
    labels = labelme(pictures.parent / "labels", {NAMES[0]: [polygon("dog", 5, 5, 3)]})
    file = pictures.parent / "run.yaml"
    file.write_text(f"from: [labelme, {labels}]\nrefine: none\nsave: none\n")
    out = pictures.parent / "out"
    segment_video(pictures, out, config=file)
    assert {masks.ids for masks in read_run(out)} == {(3,)}
