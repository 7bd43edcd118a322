"""The boxes tracker: which frame a box belongs to, whose it is, and whether it fits the video."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidseg.errors import InputError
from vidseg.masks import encode
from vidseg.registry import build_tracker
from vidseg.types import Frame, Tracker, VideoInfo

COUNT = 6
WIDTH, HEIGHT = 128, 96
NAMES = tuple(f"{5 * k:05d}.jpg" for k in range(COUNT))
STILLS = VideoInfo(WIDTH, HEIGHT, Fraction(24), frame_count=COUNT, name="clip", frame_names=NAMES)
VIDEO = VideoInfo(WIDTH, HEIGHT, Fraction(24), frame_count=COUNT, name="clip.mp4")
ENDLESS = VideoInfo(WIDTH, HEIGHT, Fraction(24), name="stream")
BOXES = [[10.0 + 15 * k, 20.0, 12.0, 16.0] for k in range(COUNT)]
"""Left, top, width, height on every frame; the object is too fast for a match by overlap."""
Found = dict[int, dict[int, list[float]]]


def save(path: Path, data: Any) -> Path:
    if isinstance(data, list | dict):
        data = json.dumps(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data)
    return path


def follow(path: Path, video: VideoInfo = STILLS, **options: object) -> tuple[Found, Tracker]:
    """Frame -> id -> box as left, top, width, height."""
    tracker = build_tracker("boxes", {"file": str(path), **options})
    tracker.start(video)
    found: Found = {}
    for k in range(COUNT):
        frame = Frame(k, k, k / 24, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        (tracks,) = tracker.step(frame)
        rows = zip(tracks.ids.tolist(), tracks.boxes.tolist(), strict=True)
        found[k] = {i: pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=0.01) for i, (x1, y1, x2, y2) in rows}
    tracker.finish()
    return found, tracker


def right(object_id: int = 1) -> Found:
    return {k: {object_id: box} for k, box in enumerate(BOXES)}


def refused(path: Path, video: VideoInfo = STILLS, **options: object) -> str:
    with pytest.raises(InputError) as error:
        follow(path, video, **options)
    return str(error.value)


def document(names: Any, *, order: tuple[int, ...] = (3, 0, 5, 1, 4, 2), **image: Any) -> dict[str, Any]:
    """COCO annotations of one object; the images stand in ``order`` and have ids that say nothing."""
    images = [{"id": 100 - k, **({"file_name": names(k)} if names else {}), **image} for k in order]
    annotations = [
        {"id": k + 1, "image_id": 100 - k, "category_id": 1, "bbox": BOXES[k], "track_id": 1} for k in range(COUNT)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "ball"}]}


@pytest.mark.parametrize(
    "names",
    [
        lambda k: NAMES[k],
        lambda k: f"data/clip/{NAMES[k]}",
        lambda k: f"C:\\data\\{NAMES[k]}",
        lambda k: NAMES[k].replace(".jpg", ".PNG"),
        lambda k: NAMES[k].removesuffix(".jpg"),
    ],
    ids=["plain", "folders", "Windows", "other suffix", "stem"],
)
def test_boxes_of_a_coco_file_go_to_the_stills_that_it_names(tmp_path: Path, names: Any) -> None:
    assert follow(save(tmp_path / "b.json", document(names)))[0] == right()


def test_names_that_fit_no_still_are_refused_with_one_of_them(tmp_path: Path) -> None:
    data = document(lambda k: "left.jpg" if k == 4 else NAMES[k])
    assert refused(save(tmp_path / "b.json", data)).endswith(
        "b.json: no frame of clip is called left.jpg (they are called 00000.jpg, ...)"
    )
    data = document(lambda k: "a/00005.jpg" if k == 4 else f"b/{NAMES[k]}")
    assert "are names of the same frame" in refused(save(tmp_path / "b.json", data))


def test_of_a_file_for_several_folders_the_one_called_as_the_video_counts(tmp_path: Path) -> None:
    data = document(lambda k: f"train/clip/{NAMES[k]}")
    for k in range(COUNT):
        data["images"].append({"id": 200 + k, "file_name": f"train/other/{NAMES[k]}"})
        data["annotations"].append({"image_id": 200 + k, "category_id": 1, "bbox": [0, 0, 5, 5], "track_id": 1})
    found, tracker = follow(save(tmp_path / "b.json", data))
    assert found == right()
    assert tracker.notes == [f"{tmp_path}/b.json: 6 boxes are on frames of other folders than train/clip"]
    elsewhere = VideoInfo(WIDTH, HEIGHT, Fraction(24), frame_count=COUNT, name="third", frame_names=NAMES)
    assert "are names of the same frame" in refused(tmp_path / "b.json", elsewhere)


@pytest.mark.parametrize("first", [0, 1])
def test_for_a_video_the_number_in_the_name_counts(tmp_path: Path, first: int) -> None:
    path = save(tmp_path / "b.json", document(lambda k: f"clip/frame_{k + first:06d}.png"))
    assert follow(path, VIDEO)[0] == right()


def test_an_explicit_number_of_the_frame_counts(tmp_path: Path) -> None:
    data = document(lambda k: f"{'abcdef'[k]}7.jpg")
    for image in data["images"]:
        image["frame_index"] = 100 - image["id"]
    assert follow(save(tmp_path / "b.json", data), VIDEO)[0] == right()


def test_names_without_a_number_are_refused_for_a_video(tmp_path: Path) -> None:
    path = save(tmp_path / "b.json", document(lambda k: f"{'f0a1c9'[k]}{'9ab3d2'[k]}.jpg"))
    assert "do not say which frame of clip.mp4 a box is on" in refused(path, VIDEO)


def test_image_ids_are_numbers_of_frames_where_the_images_have_no_names(tmp_path: Path) -> None:
    data = document(None)
    assert "boxes for frame 100, but clip.mp4 has 6 frames" in refused(save(tmp_path / "b.json", data), VIDEO)
    for row in data["images"]:
        row["id"] = 101 - row["id"]  # 1 to 6 in some order
    data["annotations"] = [{**row, "image_id": 101 - row["image_id"]} for row in data["annotations"][2:4]]
    found, _ = follow(save(tmp_path / "b.json", data), VIDEO)
    assert {k: v for k, v in found.items() if v} == {k: right()[k] for k in (2, 3)}


@pytest.mark.parametrize("spell", [lambda k: NAMES[k], lambda k: NAMES[k][:5], lambda k: 5 * k, lambda k: f"{5 * k}.0"])
def test_results_name_the_still_or_the_number_in_its_name(tmp_path: Path, spell: Any) -> None:
    rows = [{"image_id": spell(k), "category_id": 1, "bbox": box, "track_id": 1} for k, box in enumerate(BOXES)]
    assert follow(save(tmp_path / "b.json", rows))[0] == right()


def test_results_of_this_program_go_to_the_same_stills(tmp_path: Path) -> None:
    rows = [
        {"image_id": k, "file_name": NAMES[k], "category_id": 1, "bbox": box, "track_id": 1}
        for k, box in enumerate(BOXES)
    ]
    assert follow(save(tmp_path / "b.json", rows[1:3]))[0] == {k: right()[k] if k in (1, 2) else {} for k in range(6)}


def test_tubes_go_by_the_names_of_their_frames(tmp_path: Path) -> None:
    order = (5, 2, 1)
    video = {"id": 1, "file_names": [f"clip/{NAMES[k]}" for k in order], "width": WIDTH, "height": HEIGHT}
    tube = {"id": 1, "video_id": 1, "category_id": 1, "bboxes": [BOXES[k] for k in order]}
    path = save(tmp_path / "b.json", {"videos": [video], "annotations": [tube]})
    assert follow(path)[0] == {k: right()[k] if k in order else {} for k in range(COUNT)}


@pytest.mark.parametrize(
    "extra",
    [
        {"track_id": 7},
        {"tracker_id": 7.0},
        {"object_id": "7"},
        {"instance_id": 7},
        {"trackId": 7},
        {"attributes": {"occluded": False, "track_id": 7}},
        {"attributes": {"Object ID": "7"}},
    ],
    ids=str,
)
def test_ids_are_found_in_every_spelling(tmp_path: Path, extra: dict[str, Any]) -> None:
    rows = [{"image_id": 5 * k, "category_id": 1, "bbox": box, **extra} for k, box in enumerate(BOXES)]
    found, tracker = follow(save(tmp_path / "b.json", rows))
    assert found == right(7)
    assert not tracker.notes


@pytest.mark.parametrize("none", [{}, {"track_id": None}, {"track_id": -1}, {"track_id": ""}], ids=str)
def test_it_is_said_when_boxes_are_matched_by_overlap(tmp_path: Path, none: dict[str, Any]) -> None:
    rows = [{"image_id": 5 * k, "category_id": 1, "bbox": BOXES[0], **none} for k in range(COUNT)]
    found, tracker = follow(save(tmp_path / "b.json", rows))
    assert found == {k: {1: BOXES[0]} for k in range(COUNT)}
    assert tracker.notes == [f"{tmp_path}/b.json: the file has no ids; objects are matched by overlap"]


def test_objects_counted_from_0_are_kept_apart(tmp_path: Path) -> None:
    other = [60, 70, 20, 20]
    both = [(k, i, box) for k in range(COUNT) for i, box in ((0, BOXES[k]), (1, other))]
    mot = [f"{k + 1},{i},{','.join(map(str, box))},1,-1,-1,-1" for k, i, box in both]
    coco = [{"image_id": 5 * k, "bbox": box, "track_id": i} for k, i, box in both]
    for path in (save(tmp_path / "b.txt", "\n".join(mot)), save(tmp_path / "b.json", coco)):
        found, tracker = follow(path)
        assert found == {k: {1: BOXES[k], 2: other} for k in range(COUNT)}
        assert tracker.notes == [f"{path}: object ids count from 0; ids here are positive, so all go up by 1"]
    alone = save(tmp_path / "one.txt", "\n".join(mot[::2]))
    assert follow(alone)[0] == right()
    tubes = [{"video_id": 1, "id": i, "bboxes": boxes} for i, boxes in ((0, BOXES), (1, [other] * COUNT))]
    assert follow(save(tmp_path / "t.json", tubes))[0] == {k: {1: BOXES[k], 2: other} for k in range(COUNT)}


def mot(first: int = 1, separator: str = ",", end: str = "\n", x: float = 1, y: float = 1) -> str:
    scale = np.array([x, y, x, y])
    rows = [[k + first, 1, *(scale * box).tolist(), 0.9, -1, -1] for k, box in enumerate(BOXES)]
    return "".join(separator.join(map(str, row)) + end for row in rows)


@pytest.mark.parametrize(
    "data",
    [
        mot().encode(),
        mot().encode("utf-8-sig"),
        mot().encode("utf-16"),
        mot(end="\r\n").encode(),
        mot(end="\n\n").encode(),
        mot(separator="\t").encode(),
        mot(separator=";").encode(),
        mot(separator=";").replace(".", ",").encode(),
        mot(separator=", ").encode(),
        ("frame,id,bb_left,bb_top,bb_width,bb_height,conf,x,y\n" + mot()).encode(),
        ("# gr\xfc\xdfe\n" + mot()).encode("latin-1"),
        mot(first=0).encode(),
    ],
)
@pytest.mark.parametrize("name", ["b.txt", "b.TXT", "b.csv", "b"])
def test_mot_text_is_read_however_it_is_written(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert follow(tmp_path / name, VIDEO)[0] == right()


@pytest.mark.parametrize(
    "names",
    [
        ["frame", "id", "bb_left", "bb_top", "bb_width", "bb_height", "conf", "x", "y", "z"],
        ["Track ID", "class", "score", "x", "y", "w", "h", "Frame"],
        ["x_min", "y_min", "x_max", "y_max", "class_id", "confidence", "tracker_id", "frame_index"],
        ["file_name", "width", "height", "left", "top", "object_id"],
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_of_a_table_go_by_their_names(tmp_path: Path, names: list[str], separator: str) -> None:
    lines = [separator.join(names)]
    for k, (left, top, width, height) in enumerate(BOXES):
        values = {
            **{"frame": k + 1, "Frame": k + 1, "frame_index": k, "file_name": NAMES[k], "bb_left": left, "bb_top": top},
            **dict.fromkeys(("id", "Track ID", "tracker_id", "object_id"), 7),
            **{"bb_width": width, "bb_height": height, "conf": "", "score": 0.5, "confidence": 0.5, "class": '"a car"'},
            **{"z": -1, "x_min": left, "y_min": top, "x_max": left + width, "y_max": top + height, "class_id": 3},
            **{"left": left, "top": top, "width": width, "height": height, "w": width, "h": height},
            **({"x": -1, "y": -1} if "z" in names else {"x": left, "y": top}),
        }
        lines.append(separator.join(str(values[name]) for name in names))
    found, tracker = follow(save(tmp_path / "b.csv", "\n".join(lines)))
    assert found == right(7)
    assert not tracker.notes


def test_an_empty_field_moves_no_other(tmp_path: Path) -> None:
    rows = "".join(f"{k + 1},,{','.join(map(str, BOXES[0]))},,person\n" for k in range(COUNT))
    found, tracker = follow(save(tmp_path / "b.txt", rows), VIDEO)
    assert found == {k: {1: BOXES[0]} for k in range(COUNT)}
    assert "matched by overlap" in tracker.notes[0]


def test_boxes_of_a_stated_size_are_scaled(tmp_path: Path) -> None:
    data = document(lambda k: NAMES[k], width=5 * WIDTH, height=5 * HEIGHT)
    data["annotations"] = [{**row, "bbox": [5 * v for v in row["bbox"]]} for row in data["annotations"]]
    found, tracker = follow(save(tmp_path / "b.json", data))
    assert found == right()
    assert tracker.notes == [f"{tmp_path}/b.json: boxes for 640x480 are scaled to 128x96"]
    mask = np.zeros((2 * HEIGHT, 2 * WIDTH), np.bool_)
    mask[40:72, 20:44] = True
    tube = [{"video_id": 1, "segmentations": [encode(mask).to_coco(), *[None] * 5]}]
    assert follow(save(tmp_path / "t.json", tube))[0][0] == right()[0]


def test_boxes_for_frames_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "b.json", document(lambda k: NAMES[k], width=HEIGHT, height=WIDTH))
    assert "boxes for 96x128, the frames are 128x96: another shape" in refused(path)


def test_boxes_outside_the_frame_are_counted(tmp_path: Path) -> None:
    text = refused(save(tmp_path / "big.txt", mot(x=5, y=5)), VIDEO)
    assert "6 of 6 boxes lie outside the frame of 128x96 (one is 50,100,110,180)" in text
    assert "they reach to 485,180: made for another size?" in text
    found, tracker = follow(save(tmp_path / "wide.txt", mot(x=2)), VIDEO)
    assert [len(boxes) for boxes in found.values()] == [1, 1, 1, 1, 0, 0]
    assert len(tracker.warnings) == 1
    assert "2 of 6 boxes lie outside the frame of 128x96 (one is 140,20,164,36)" in tracker.warnings[0]


def test_an_object_that_leaves_the_frame_is_no_fault(tmp_path: Path) -> None:
    rows = [f"{k % COUNT + 1},{k + 1},{120 if k else 300},20,30,30,1" for k in range(20)]
    _, tracker = follow(save(tmp_path / "b.txt", "\n".join(rows[1:])), VIDEO)
    assert (tracker.notes, tracker.warnings) == ([], [])  # partly outside
    _, tracker = follow(save(tmp_path / "b.txt", "\n".join(rows)), VIDEO)
    assert not tracker.warnings
    assert "1 of 20 boxes lie outside the frame" in tracker.notes[0]


def test_shares_of_the_frame_are_refused_as_pixels(tmp_path: Path) -> None:
    path = save(tmp_path / "norm.txt", mot(x=1 / WIDTH, y=1 / HEIGHT))
    assert "all boxes are smaller than a pixel: fractions of the frame? pixels expected" in refused(path, VIDEO)


def test_boxes_on_frames_that_never_come_are_counted(tmp_path: Path) -> None:
    path = save(tmp_path / "b.txt", mot() + "9,1,0,0,9,9\n12,1,0,0,9,9\n")
    assert "boxes for frame 12, but clip.mp4 has 6 frames, 1 to 6 as the file counts" in refused(path, VIDEO)
    found, tracker = follow(path, ENDLESS)
    assert found == right()
    assert tracker.warnings == [f"{path}: 2 boxes are on frames 8 to 11; the last frame was 5"]
    part = VideoInfo(WIDTH, HEIGHT, Fraction(24), name="stream", end=COUNT)
    assert not follow(path, part)[1].warnings


def test_a_file_from_which_no_box_is_used_says_so(tmp_path: Path) -> None:
    _, tracker = follow(save(tmp_path / "b.json", []))
    assert tracker.notes == [f"{tmp_path}/b.json: no boxes in it"]
    _, tracker = follow(save(tmp_path / "b.txt", mot()), VIDEO, min_score=0.95)
    assert tracker.notes == [f"{tmp_path}/b.txt: all 6 boxes score below min_score"]


def yolo(k: int, more: str = "") -> str:
    left, top, width, height = BOXES[k]
    x, y = (left + width / 2) / WIDTH, (top + height / 2) / HEIGHT
    return f"2 {x:.6f} {y:.6f} {width / WIDTH:.6f} {height / HEIGHT:.6f}{more}\n"


def yolo_folder(folder: Path, names: Any, more: str = "") -> Path:
    for k in range(COUNT):
        save(folder / names(k), yolo(k, more))
    return folder


def test_a_folder_of_yolo_labels_goes_by_the_names_of_the_stills(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path / "run" / "labels", lambda k: f"{5 * k:05d}.txt", " 0.5 7")
    save(folder / "classes.txt", "cat\r\ndog\r\nball\r\n")
    save(folder / "._00000.txt", "no labels")
    for path in (folder, tmp_path / "run"):
        found, tracker = follow(path)
        assert found == right(7)
        assert not tracker.notes
    (tracks,) = tracker.step(Frame(0, 0, 0.0, np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
    assert (tracks.labels, tracks.scores.tolist()) == (("ball",), [0.5])


@pytest.mark.parametrize("first", [0, 1])
def test_a_folder_of_yolo_labels_of_a_video_goes_by_number(tmp_path: Path, first: int) -> None:
    folder = yolo_folder(tmp_path / "labels", lambda k: f"clip_{k + first}.txt", " 7")
    assert follow(folder, VIDEO)[0] == right(7)


@pytest.mark.parametrize(
    ("more", "score", "ids"), [("", 1.0, False), (" 0.25", 0.25, False), (" 7", 1.0, True), (" 0.25 7", 0.25, True)]
)
def test_one_yolo_file_is_of_the_still_of_its_name(tmp_path: Path, more: str, score: float, ids: bool) -> None:
    path = save(tmp_path / "00010.txt", yolo(2, more))
    found, tracker = follow(path)
    assert found == {k: {7 if ids else 1: BOXES[2]} if k == 2 else {} for k in range(COUNT)}
    assert any("matched by overlap" in note for note in tracker.notes) != ids
    (tracks,) = tracker.step(Frame(2, 2, 0.0, np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
    assert tracks.scores.tolist() == [score]
    assert tracks.labels == ("2",)


def test_yolo_outlines_give_their_box(tmp_path: Path) -> None:
    left, top, width, height = BOXES[0]
    corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    outline = " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in corners)
    assert follow(save(tmp_path / "00000.txt", f"2 {outline}\n"))[0][0] == right()[0]


def test_yolo_labels_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    assert "no frame of clip is called 99999.txt" in refused(save(tmp_path / "99999.txt", yolo(0)))
    (tmp_path / "empty").mkdir()
    assert "empty: no .txt files" in refused(tmp_path / "empty")
    folder = yolo_folder(tmp_path / "labels", lambda k: f"{5 * k:05d}.txt")
    save(folder / "00010.txt", "2 0.5 0.5 64 48\n")
    assert "00010.txt, line 1: 'class x y width height [confidence] [id]' expected (fractions" in refused(folder)
