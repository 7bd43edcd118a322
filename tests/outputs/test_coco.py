"""COCO as a data set: what pycocotools reads back."""

from __future__ import annotations

import json

import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from exports import COUNT, SIZE, exported, square, write_run
from vidseg.classes import ClassSet
from vidseg.outputs import export, open_recording
from vidseg_pipelines.commands.export import ExportCommand


def test_pycocotools_opens_the_data_set_and_takes_the_results(tmp_path):
    run = write_run(tmp_path / "run", video={"name": "zoo", "width": SIZE[1], "height": SIZE[0], "codec": "h264"})
    assert export(open_recording(run / "masks.jsonl"), run, ["coco", "coco-results"]) == []
    truth = COCO(str(run / "coco.json"))
    assert [(c["id"], c["name"]) for c in truth.loadCats(truth.getCatIds())] == [(1, "dog"), (2, "object")]
    assert [i["file_name"] for i in truth.dataset["images"]] == [f"zoo_{k:05d}.jpg" for k in range(COUNT)]
    assert all((i["height"], i["width"]) == SIZE for i in truth.dataset["images"])
    assert min(truth.anns) == 1
    for entry in truth.anns.values():
        mask = square(entry["image_id"], entry["track_id"])
        assert (truth.annToMask(entry) == mask).all()
        assert entry["area"] == mask.sum() == coco_mask.area(entry["segmentation"])
    assert len(truth.loadRes(str(run / "coco_results.json")).anns) == len(truth.anns) == COUNT + 4


def test_files_of_different_videos_can_be_put_together(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\nobject\ndog\n")
    parts = []
    for number in (1, 2):
        run = write_run(tmp_path / f"run{number}", video={"name": f"clip{number}", "codec": "h264"})
        assert ExportCommand(run, "coco,ytvis", classes=tmp_path / "classes.txt", video_id=number).run() == 0
        assert {e["video_id"] for e in json.loads((run / "ytvis.json").read_text())} == {number}
        parts.append(json.loads((run / "coco.json").read_text()))
    assert parts[0]["categories"] == parts[1]["categories"]
    assert [(c["id"], c["name"]) for c in parts[0]["categories"]] == [(1, "cat"), (2, "object"), (3, "dog")]
    merged = {"categories": parts[0]["categories"], "images": [], "annotations": []}
    for part in parts:
        merged["images"] += part["images"]
        merged["annotations"] += part["annotations"]
    (tmp_path / "all.json").write_text(json.dumps(merged))
    both = COCO(str(tmp_path / "all.json"))
    assert len(both.imgs) == 2 * COUNT
    assert len({image["file_name"] for image in both.imgs.values()}) == 2 * COUNT
    assert len(both.anns) == 2 * (COUNT + 4)


def test_the_number_of_a_video_is_that_of_its_run(tmp_path):
    run = write_run(tmp_path / "run", video={"name": "clip", "codec": "h264", "id": 7})
    assert ExportCommand(run, "coco,ytvis,coco-results").run() == 0
    coco = COCO(str(run / "coco.json"))
    assert {image["video_id"] for image in coco.imgs.values()} == {7}
    assert len(coco.loadRes(str(run / "coco_results.json")).anns) == COUNT + 4
    assert ExportCommand(run, "ytvis", video_id=2).run() == 0
    assert {e["video_id"] for e in json.loads((run / "ytvis.json").read_text())} == {2}


def test_names_and_classes_can_be_given_at_the_export(tmp_path):
    run = write_run(tmp_path / "run")
    assert ExportCommand(run, "ytvis", label=("2=Bär 熊",)).run() == 0
    entries = json.loads((run / "ytvis.json").read_text())
    assert [(e["id"], e["category_name"], e["category_id"]) for e in entries] == [(1, "dog", 2), (2, "Bär 熊", 1)]
    given = ClassSet({"Bär 熊": 7, "dog": 4})
    path = exported("ytvis", run / "masks.jsonl", run, names={2: "Bär 熊"}, classes=given)
    assert [e["category_id"] for e in json.loads(path.read_text())] == [4, 7]


@pytest.mark.parametrize("numbers", [{"dog": 5, "fox": 2}, {}])
def test_numbers_of_the_run_are_kept(tmp_path, numbers):
    run = write_run(tmp_path / "run", classes=numbers)
    data = json.loads(exported("coco", run / "masks.jsonl", run).read_text())
    expected = [("fox", 2), ("dog", 5), ("object", 6)] if numbers else [("dog", 1), ("object", 2)]
    assert [(c["name"], c["id"]) for c in data["categories"]] == expected
