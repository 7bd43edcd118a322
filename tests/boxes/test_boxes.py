"""The boxes tracker: four file formats, frame-exact, and ids for detections that have none."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from vidseg.errors import InputError, UsageError
from vidseg.masks import bbox, encode
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs import JournalSink
from vidseg.registry import build_tracker
from vidseg.types import Frame, Prompt, Tracker, VideoInfo

INFO = VideoInfo(100, 80, Fraction(25), frame_count=12)
BLACK = np.zeros((80, 100, 3), np.uint8)


def frame(index: int) -> Frame:
    return Frame(index, index, index / 25, BLACK)


def moving(index: int) -> list[float]:
    """Left object, XYWH; it moves two pixels per frame."""
    return [5 + 2 * index, 10, 20, 30]


BOX = [0, 0, 1, 1]
STILL = [60, 20, 30, 40]


def tracker(path, **options) -> Tracker:
    made = build_tracker("boxes", {"file": str(path), **options})
    made.start(INFO)
    return made


def follow(made: Tracker, indices=range(12)) -> dict[int, dict[int, list[float]]]:
    """Frame -> id -> box as XYWH."""
    found = {}
    for index in indices:
        (tracks,) = made.step(frame(index))
        assert tracks.frame_index == index
        found[index] = {
            int(i): [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])]
            for i, b in zip(tracks.ids, tracks.boxes, strict=True)
        }
    assert made.finish() == []
    return found


def save(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def truth(ids=(1, 2)):
    return {k: {ids[0]: moving(k), ids[1]: STILL} if k % 4 != 3 else {ids[0]: moving(k)} for k in range(12)}


def entries(with_ids: bool, first: int = 0):
    return [
        {"image_id": k + first, "category_id": 3, "bbox": box, "score": 0.5, **({"track_id": i} if with_ids else {})}
        for k, objects in truth().items()
        for i, box in objects.items()
    ]


def test_it_is_a_tracker(tmp_path):
    made = tracker(save(tmp_path / "b.json", entries(True)))
    assert isinstance(made, Tracker)
    assert (made.lookahead, made.wants_masks, made.finds_objects) == (0, False, True)


def test_coco_with_ids(tmp_path):
    made = tracker(save(tmp_path / "b.json", entries(True)))
    assert follow(made) == truth()
    (tracks,) = made.step(frame(0))
    assert tracks.labels == ("3", "3")
    assert tracks.scores.tolist() == [0.5, 0.5]
    assert tracks.boxes.dtype == np.float32


def test_coco_counted_from_one(tmp_path):
    made = tracker(save(tmp_path / "b.json", entries(True, first=1)))
    assert follow(made) == truth()
    assert made.notes == [f"{tmp_path}/b.json: its frames are taken to count from 1 (tracker option first_frame)"]
    two_more = save(tmp_path / "c.json", entries(True, first=2))
    with pytest.raises(InputError, match="boxes for frame 13, but video has 12 frames, 0 to 11 as the file counts"):
        tracker(two_more)
    assert follow(tracker(two_more, first_frame=2)) == truth()


def test_coco_with_a_list_of_images(tmp_path):
    """Image ids are looked up in the list, whose order is the order of frames; categories have names."""
    numbers = [1000 - 7 * k for k in range(12)]
    data = {
        "images": [{"id": n, "file_name": f"{k}.jpg"} for k, n in enumerate(numbers)],
        "categories": [{"id": 3, "name": "dog"}],
        "annotations": [e | {"image_id": numbers[e["image_id"]]} for e in entries(True)],
    }
    made = tracker(save(tmp_path / "b.json", data))
    assert follow(made) == truth()
    assert made.step(frame(1))[0].labels == ("dog", "dog")


def test_ytvis(tmp_path):
    mask = np.zeros((80, 100), np.bool_)
    mask[20:60, 60:90] = True
    rle = encode(mask).to_coco()
    data = [
        {"video_id": 5, "category_id": 1, "score": 0.9, "bboxes": [moving(k) for k in range(12)]},
        {"video_id": 5, "category_id": 2, "segmentations": [None if k % 4 == 3 else rle for k in range(12)]},
    ]
    assert follow(tracker(save(tmp_path / "b.json", data))) == truth()
    both = [*data, {"video_id": 6, "category_id": 1, "bboxes": [[0, 0, 5, 5]] * 12}]
    with pytest.raises(InputError, match="holds 2 videos; choose one with the tracker option video_id"):
        tracker(save(tmp_path / "two.json", both))
    assert follow(tracker(save(tmp_path / "two.json", both), video_id=5)) == truth()
    with pytest.raises(InputError, match="no video 7; it holds 5, 6"):
        tracker(save(tmp_path / "two.json", both), video_id=7)


def test_mot_counts_frames_from_one(tmp_path):
    lines = [
        f"{k + 1},{i + 10},{box[0]},{box[1]},{box[2]},{box[3]},-1,-1,-1,-1"
        for k, objects in truth().items()
        for i, box in objects.items()
    ]
    made = tracker(save(tmp_path / "b.txt", "# made by a tracker\n\n" + "\n".join(lines) + "\n"))
    assert follow(made) == truth((11, 12))
    assert made.step(frame(0))[0].scores.tolist() == [1, 1]  # -1 means not given
    assert follow(tracker(save(tmp_path / "s.txt", "\n".join(lines).replace(",", " ")))) == truth((11, 12))


def test_our_own_journal(tmp_path):
    sink = JournalSink(tmp_path / "masks.jsonl")
    for k, objects in truth((4, 9)).items():
        rles = []
        for x, y, w, h in objects.values():
            mask = np.zeros((80, 100), np.bool_)
            mask[y : y + h, x : x + w] = True
            rles.append(encode(mask))
        boxes = np.array([bbox(r) for r in rles])
        names = ("a", None)[: len(rles)]
        sink.write(
            frame(k), FrameMasks(k, k, 0.0, tuple(objects), boxes, np.ones(len(rles), np.float32), names, tuple(rles))
        )
    sink.close()
    made = tracker(tmp_path / "masks.jsonl")
    assert follow(made) == truth((4, 9))
    assert made.step(frame(0))[0].labels == ("a", None)


def test_detections_without_ids_get_stable_ids(tmp_path):
    """Shuffled in every frame; object 2 is missing on every fourth frame and comes back as itself."""
    rng = np.random.default_rng(3)
    shuffled = [entry for k in rng.permutation(23) for entry in [entries(False)[k % len(entries(False))]]]
    unique = list({json.dumps(e): e for e in [*shuffled, *entries(False)]}.values())
    found = follow(tracker(save(tmp_path / "b.json", unique)))
    still = {i for boxes in found.values() for i, box in boxes.items() if box == STILL}
    moves = {i for boxes in found.values() for i, box in boxes.items() if box != STILL}
    assert len(still) == len(moves) == 1
    assert still | moves == {1, 2}


def test_gaps_labels_and_least_overlap(tmp_path):
    def one(index, box, label=1):
        return {"image_id": index, "category_id": label, "bbox": box, "score": 0.9}

    gap = [one(0, STILL), one(4, STILL)]
    assert [list(v) for v in follow(tracker(save(tmp_path / "a.json", gap), max_gap=3)).values() if v] == [[1], [1]]
    assert [list(v) for v in follow(tracker(save(tmp_path / "a.json", gap), max_gap=2)).values() if v] == [[1], [2]]
    labels = [one(0, STILL, 1), one(1, STILL, 2)]
    assert [list(v) for v in follow(tracker(save(tmp_path / "b.json", labels))).values() if v] == [[1], [2]]
    jump = [one(0, [0, 0, 20, 20]), one(1, [10, 0, 20, 20])]  # overlap one third
    assert [list(v) for v in follow(tracker(save(tmp_path / "c.json", jump))).values() if v] == [[1], [1]]
    assert [list(v) for v in follow(tracker(save(tmp_path / "c.json", jump), iou=0.4)).values() if v] == [[1], [2]]


def test_the_best_assignment_wins_over_the_greedy_one(tmp_path):
    """Taking the largest overlap first would leave the second box without a partner."""

    def one(index, x):
        return {"image_id": index, "category_id": 1, "bbox": [x, 0, 20, 20]}

    data = [one(0, 0), one(0, 10), one(1, 6.5), one(1, 15)]
    found = follow(tracker(save(tmp_path / "a.json", data), iou=0.3))
    assert {i: b[0] for i, b in found[1].items()} == {1: 6.5, 2: 15}


def test_state_continues_exactly(tmp_path):
    path = save(tmp_path / "b.json", entries(False))
    whole = follow(tracker(path))
    first, second = tracker(path), tracker(path)
    follow(first, range(7))
    second.load_state_dict(first.state_dict())
    assert follow(second, range(7, 12)) == {k: whole[k] for k in range(7, 12)}
    first.start(INFO)
    assert follow(first) == whole


def test_boxes_are_cut_to_the_frame_and_filtered_by_score(tmp_path):
    data = [
        {"image_id": 0, "category_id": 1, "track_id": 1, "bbox": [-10, -10, 30, 30], "score": 0.9},
        {"image_id": 0, "category_id": 1, "track_id": 2, "bbox": [200, 10, 30, 30], "score": 0.9},
        {"image_id": 0, "category_id": 1, "track_id": 3, "bbox": [10, 10, 30, 30], "score": 0.2},
    ]
    made = tracker(save(tmp_path / "b.json", data), min_score=0.5)
    assert follow(made)[0] == {1: [0, 0, 20, 20]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.json", "[{", r"b\.json: not json"),
        ("b.json", "[" * 100_000, r"b\.json: not json"),
        ("b.json", '"text"', r"b\.json: a list of results"),
        (
            "b.json",
            {"categories": [1], "annotations": []},
            "'images' and 'videos' must be lists of objects",
        ),
        (
            "b.json",
            {"images": [{"id": []}], "annotations": []},
            "'images' and 'videos' must be lists of objects",
        ),
        ("b.json", '[{"image_id": Infinity, "bbox": [0, 0, 1, 1]}]', "entry 0: frame inf: a whole number"),
        ("b.json", "[1]", r"b\.json: a list of results"),
        ("b.json", [{"bbox": [0, 0, 1, 1]}], r"entry 0: no 'image_id'"),
        ("b.json", [{"image_id": 0}], "entry 0: no 'bbox' and no 'segmentation'"),
        ("b.json", [{"image_id": 0, "bbox": [0, 0, -5, 1]}], "entry 0: box 0,0,-5,1"),
        ("b.json", [{"image_id": 0, "bbox": [0, 0, 1]}], "entry 0: not enough values"),
        ("b.json", [{"image_id": -1, "bbox": [0, 0, 1, 1]}], "entry 0: frame -1"),
        ("b.json", [{"image_id": 0, "bbox": [0, 0, 1, 1], "track_id": -2}], "entry 0: object id -2: a whole number"),
        ("b.json", [{"image_id": 0, "bbox": [0, 0, 1, 1], "track_id": "ball"}], "entry 0: object id 'ball'"),
        ("b.json", '[{"image_id": 0, "bbox": [0, 0, 1, 1], "score": NaN}]', "entry 0: score nan: a finite number"),
        ("b.json", [{"image_id": 0, "bbox": [0, 0, 1, 1], "track_id": 4}] * 2, "object 4 has two boxes"),
        (
            "b.json",
            [{"image_id": k, "bbox": [0, 0, 1, 1], **({"track_id": 4} if k else {})} for k in (0, 1)],
            "1 boxes have ids and 1 have none; give ids to all",
        ),
        (
            "b.json",
            {"images": [{"id": 3}], "annotations": [{"image_id": 4, "bbox": [0, 0, 1, 1]}]},
            "image_id 4 is not",
        ),
        ("b.txt", "1,1,0,0,10,10\n1,2,0,zero,10,10\n", r"b\.txt, line 2"),
        ("b.txt", "1,1,0\n", r"b\.txt, line 1"),
        ("b.txt", "-1,1,0,0,10,10\n", r"b\.txt, line 1: .*frame '-1': a whole number from 0 on expected"),
        ("b.txt", "1,1,0,0,10,10,nan\n", r"b\.txt, line 1: .*score 'nan': a finite number expected"),
        ("b.csv", "frame,id,x,y\n1,1,0,0\n", r"b\.csv, line 1: no column for width among frame, id, x, y"),
        ("b.csv", "frame,x1,y1,x2,y2\n1,1,0,0\n", r"b\.csv, line 2: 4 fields, but 5 columns"),
        ("b.txt", "1,1,nan,0,10,10\n", r"b\.txt, line 1"),
        ("b.jsonl", "text\n", r"b\.jsonl, line 1"),
    ],
)
def test_wrong_files_name_the_place(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        tracker(save(tmp_path / name, content))


def test_wrong_options(tmp_path):
    path = save(tmp_path / "b.json", entries(True))
    with pytest.raises(UsageError, match=r"boxes tracker: unknown option 'min_scor' \(did you mean 'min_score'\?\)"):
        tracker(path, min_scor=1)
    with pytest.raises(UsageError, match="--boxes FILE"):
        build_tracker("boxes", {})
    with pytest.raises(UsageError, match="iou 0"):
        tracker(path, iou=0)
    with pytest.raises(UsageError, match="max_gap -1"):
        tracker(path, max_gap=-1)
    with pytest.raises(InputError, match=r"none\.json: file not found"):
        tracker(tmp_path / "none.json")
    with pytest.raises(UsageError, match="takes no prompts"):
        tracker(path).step(frame(0), [Prompt(0, 1, box=(0, 0, 5, 5))])
