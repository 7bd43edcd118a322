"""Wrong files: one clear line and exit code 3 before anything is computed, from the commands as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval_media import (
    image_result,
    image_truth,
    rle,
    save_labels,
    square,
    tube_result,
    tube_truth,
    unpack,
    write,
)
from vidseg.errors import InputError
from vidseg.evaluation.davis import evaluate_davis
from vidseg.evaluation.image_ap import evaluate_coco, evaluate_lvis
from vidseg.evaluation.tube_ap import evaluate_tubes
from vidseg_pipelines.cli import main

MASK = square((40, 60), 10, 10, 10)
LVIS_LISTS: dict[str, Any] = {"neg_category_ids": [], "not_exhaustive_category_ids": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": 9}, "result 0 has video_id 9, which the ground truth does not have (it has 1)"),
        ({"video_id": None}, "result 0 has video_id nothing"),
        ({"video_id": 9.0}, "result 0 has video_id 9, which the ground truth does not have (it has 1)"),
        ({"video_id": 1.5}, "result 0 has video_id 1.5: an integer is expected (the ground truth has 1)"),
        ({"video_id": "one"}, "result 0 has video_id 'one': an integer is expected"),
        ({"video_id": True}, "result 0 has video_id True"),
        ({"category_id": 3}, "result 0 has category_id 3, which the ground truth does not have (it has 1, 2)"),
        ({"score": float("nan")}, "result 0 has score nan: a finite number"),
        ({"score": float("inf")}, "result 0 has score inf"),
        ({"score": "high"}, "result 0 has score 'high'"),
        ({"score": 10**400}, "result 0 has score 1000"),
        ({"score": None}, "result 0 has score nothing"),
        ({"segmentations": [rle(MASK)]}, "'segmentations' has 1 entries, but its video has 2 frames"),
        ({"segmentations": [rle(MASK)] * 3}, "'segmentations' has 3 entries, but its video has 2 frames"),
        ({"segmentations": None}, "'segmentations' has no list"),
        ({"segmentations": [None, rle(MASK[1:])]}, "result 0, frame 1: mask of 60x39 pixels, but the frame has 60x40"),
        (
            {"segmentations": [None, [[1, 1, 5, 1, 5, 5]]]},
            "frame 1 has a segmentation of type list: run-lengths, not polygons",
        ),
        ({"segmentations": [{"size": [40, 60], "counts": "zzz\x7f"}, None]}, "result 0, frame 0: RLE counts"),
        ({"segmentations": [{"size": [40, 60], "counts": [7]}, None]}, "RLE counts sum to 7"),
        ({"segmentations": [{"size": [40, 60]}, None]}, "result 0, frame 0: RLE"),
    ],
)
def test_wrong_tube_results(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    gt, pred = write(tmp_path / "gt.json", tube_truth()), write(tmp_path / "pred.json", [tube_result(**change)])
    with pytest.raises(InputError) as error:
        evaluate_tubes(gt, pred)
    assert message in str(error.value)
    assert str(pred) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 0}, "annotations[0] has id 0, at least 1 is expected: 0 means 'no match' to evaluators; start at 1"),
        ({"id": -1}, "annotations[0] has id -1"),
        ({"id": "one"}, "annotations[0] has id 'one': an integer"),
        ({"id": None}, "annotations[0] has id nothing"),
        ({"id": 2**63}, "annotations[0] has id 9223372036854775808: an integer of 64 bits"),
        ({"video_id": 2}, "annotation 1 has video_id 2"),
        ({"category_id": 7}, "annotation 1 has category_id 7"),
        ({"iscrowd": 2}, "annotation 1 has iscrowd 2: 0 or 1"),
        ({"areas": [1]}, "'areas' has 1 entries, but its video has 2 frames"),
        ({"areas": [1, -1]}, "'areas' must hold finite numbers"),
        ({"areas": [1, float("nan")]}, "'areas' must hold finite numbers"),
        ({"areas": None}, "'areas' has no list"),
        ({"segmentations": [None]}, "'segmentations' has 1 entries"),
        ({"segmentations_refined": [None]}, "'segmentations_refined' has 1 entries"),
        ({"segmentations": [[[1, 1, 5]], None]}, "frame 0: polygon [1, 1, 5]: a flat list of 3 or more points"),
        ({"segmentations": [[], None]}, "an empty list of polygons"),
        ({"segmentations": [[[1, 1, 5, 1, 5, float("inf")]], None]}, "frame 0: polygon"),
    ],
)
def test_wrong_tube_truth(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    gt, pred = write(tmp_path / "gt.json", tube_truth(**change)), write(tmp_path / "pred.json", [tube_result()])
    with pytest.raises(InputError) as error:
        evaluate_tubes(gt, pred)
    assert message in str(error.value)
    assert str(gt) in str(error.value)


def test_wrong_tables(tmp_path: Path) -> None:
    pred = write(tmp_path / "pred.json", [])

    def message(truth: Any) -> str:
        with pytest.raises(InputError) as error:
            evaluate_tubes(write(tmp_path / "gt.json", truth), pred)
        return str(error.value)

    truth = tube_truth()
    private = {key: value for key, value in truth.items() if key != "annotations"}
    assert "no 'annotations' in it" in message(private)
    assert "is an object with the lists videos, annotations, categories" in message([truth])
    assert "'videos' must be a list of objects" in message({**truth, "videos": {}})
    assert "'categories' must be a list" in message({**truth, "categories": [1]})
    assert "'categories' is empty" in message({**truth, "categories": []})
    for table in ("videos", "categories", "annotations"):
        assert f"{table}[{len(truth[table])}] has id 1 again" in message(
            {**truth, table: [*truth[table], truth[table][0]]}
        )
    video = truth["videos"][0]
    assert "length 0" in message({**truth, "videos": [{**video, "length": 0}]})
    assert "length 3 but 2 file_names" in message({**truth, "videos": [{**video, "length": 3}]})
    assert "video 1 has size 60xnothing" in message({**truth, "videos": [{**video, "height": None}]})


def test_wrong_files(tmp_path: Path) -> None:
    gt = write(tmp_path / "gt.json", tube_truth())
    broken = tmp_path / "broken.json"
    broken.write_text('[{"video_id": 1,')
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    for pred, message in (
        (tmp_path / "none.json", "file not found"),
        (tmp_path, "cannot be read"),
        (broken, "not json"),
        (binary, "line 1: not utf-16 text"),
        (gt, "results are a list of objects"),
        (write(tmp_path / "list.json", [[1]]), "results are a list of objects"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_tubes(gt, pred)


@pytest.mark.parametrize("evaluate", [evaluate_coco, evaluate_lvis])
def test_wrong_images(tmp_path: Path, evaluate: Any) -> None:
    mask = square((100, 100), 10, 10, 20)
    good = {"segmentation": rle(mask)}

    def message(truth: Any, results: Any) -> str:
        with pytest.raises(InputError) as error:
            evaluate(write(tmp_path / "gt.json", truth), write(tmp_path / "pred.json", results))
        return str(error.value)

    def truth(**change: Any) -> Any:
        return image_truth([{**good, **change}], **LVIS_LISTS)

    result = image_result(mask)
    evaluate(write(tmp_path / "gt.json", truth()), write(tmp_path / "pred.json", [result]))
    assert "annotations[0] has id 0" in message(truth(id=0), [result])
    assert "annotation 1 has area -4" in message(truth(area=-4), [result])
    assert "annotation 1 has area nothing" in message(truth(area=None), [result])
    assert "annotation 1 has image_id 5" in message(truth(image_id=5), [result])
    assert "result 1 has image_id 5" in message(truth(), [result, {**result, "image_id": 5}])
    assert "result 0 has category_id 9" in message(truth(), [{**result, "category_id": 9}])
    assert "result 0 has score nan" in message(truth(), [{**result, "score": float("nan")}])
    assert "mask of 90x100 pixels, but the frame has 100x100" in message(
        truth(), [{**result, "segmentation": rle(mask[:, :90])}]
    )
    assert "not polygons" in message(truth(), [{**result, "segmentation": [[1, 1, 5, 1, 5, 5]]}])
    assert "type NoneType" in message(truth(), [{"image_id": 1, "category_id": 1, "score": 1, "bbox": [0, 0, 5, 5]}])


def test_lvis_needs_its_lists(tmp_path: Path) -> None:
    mask = square((100, 100), 10, 10, 20)
    pred = write(tmp_path / "pred.json", [image_result(mask)])
    gt = write(tmp_path / "gt.json", image_truth([{"segmentation": rle(mask)}]))
    with pytest.raises(InputError, match="'neg_category_ids' must be a list"):
        evaluate_lvis(gt, pred)
    truth = image_truth([{"segmentation": rle(mask)}], **LVIS_LISTS)
    del truth["categories"][0]["frequency"]
    with pytest.raises(InputError, match="category 1 has frequency None: r, c or f"):
        evaluate_lvis(write(tmp_path / "gt.json", truth), pred)


def run(*words: object) -> int:
    return main(["eval", *map(str, words)])


def test_commands_report_errors_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gt = write(tmp_path / "gt.json", tube_truth(id=0))
    pred = write(tmp_path / "pred.json", [tube_result()])
    for command in ("ytvis", "hq-ytvis"):
        assert run(command, "--gt", gt, "--pred", pred, "--json", tmp_path / "out.json") == 3
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("vidseg: ") and "has id 0" in err and err.count("\n") == 1
    for command in ("davis", "vos", "masks", "coco", "lvis"):
        assert run(command, "--gt", tmp_path / "none", "--pred", pred) == 3
        assert capsys.readouterr().err.count("\n") == 1
    huge = tmp_path / "huge.json"
    huge.write_text('[{"score": 1' + "0" * 5000 + "}]")
    assert run("ytvis", "--gt", write(tmp_path / "truth.json", tube_truth()), "--pred", huge) == 3
    assert "not json" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()
    gt = write(tmp_path / "gt.json", tube_truth())
    assert run("hq-ytvis", "--gt", gt, "--pred", pred, "--ratio", 2) == 2


def test_davis_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = square((40, 60), 10, 10, 12)
    save_labels(tmp_path / "gt" / "s" / "masks", [box] * 4)
    save_labels(tmp_path / "pred" / "s", [box, box, box * 0, box])
    out, plot = tmp_path / "deep" / "out.json", tmp_path / "plots" / "out.png"
    assert run("davis", "--gt", tmp_path / "gt", "--pred", tmp_path / "pred", "--json", out, "--plot", plot) == 0
    report = json.loads(out.read_text())
    keys = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
    assert [report[key] for key in keys] == [0.5, 0.5, 0.5, 1.0, 0.5, 0.5, 1.0]
    assert report["protocol"]["frames"] == 2
    assert report["per_object"][0]["worst_frame"] == "00002"
    assert report["worst"] == report["per_object"]
    text = capsys.readouterr().out
    assert "plain folders" in text and "0.5000" in text and "255" in text
    with Image.open(plot) as image:
        assert len(image.convert("RGB").getcolors(10000) or []) > 5
    assert (
        run("vos", "--gt", tmp_path / "gt", "--pred", tmp_path / "pred", "--json", out, "--plot", plot, "--all-frames")
        == 0
    )
    assert json.loads(out.read_text())["J&F"] == 75


def test_ap_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, plot, out = unpack("hq_ytvis", tmp_path), tmp_path / "out.png", tmp_path / "out.json"
    files = ("--gt", root / "gt.json", "--pred", root / "results.json", "--json", out, "--plot", plot)
    assert run("hq-ytvis", *files) == 0
    report, want = json.loads(out.read_text()), json.loads((root / "expected.json").read_text())
    for kind in ("mask", "boundary"):
        stats = want[f"tube_{kind}"]["default"]["stats"]
        assert {key: report[kind][key] for key in stats} == pytest.approx(stats, abs=1e-9)
    assert {key: report[key] for key in stats} == {key: report["boundary"][key] for key in stats}
    assert report["protocol"]["ratio"] == 0.02
    assert report["protocol"]["maxDets"] == [1, 10, 100]
    assert len(report["boundary"]["worst"]) == 10
    assert run("ytvis", *files, "--max-dets", "1", "2") == 0
    report = json.loads(out.read_text())
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR2", "per_category", "worst", "protocol"} <= set(report)
    assert plot.is_file()

    root = unpack("coco_boundary", tmp_path)
    files = ("--gt", root / "gt.json", "--pred", root / "results.json", "--json", out)
    want = json.loads((root / "expected.json").read_text())
    assert run("coco", *files, "--class-agnostic") == 0
    assert json.loads(out.read_text())["AP"] == pytest.approx(want["segm"]["class_agnostic"]["stats"]["AP"], abs=1e-9)
    assert run("coco", *files, "--boundary", "0.01") == 0
    report = json.loads(out.read_text())
    assert (
        report["AP"]
        == report["boundary"]["AP"]
        == pytest.approx(want["boundary_0.01"]["default"]["stats"]["AP"], abs=1e-9)
    )
    assert report["mask"]["AP"] == pytest.approx(want["segm"]["default"]["stats"]["AP"], abs=1e-9)

    root = unpack("lvis_boundary", tmp_path)
    files = ("--gt", root / "gt.json", "--pred", root / "results.json", "--json", out)
    want = json.loads((root / "expected.json").read_text())
    assert run("lvis", *files, "--boundary", "0.02") == 0
    report = json.loads(out.read_text())
    assert {key: report[key] for key in want["boundary_0.02"]["results"]} == pytest.approx(
        want["boundary_0.02"]["results"]
    )
    assert "300 per image" in capsys.readouterr().out


def test_masks_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = unpack("miou_mbiou", tmp_path), tmp_path / "out.json"
    assert (
        run("masks", "--gt", root / "gt", "--pred", root / "pred_masks", "--json", out, "--plot", tmp_path / "p.png")
        == 0
    )
    report = json.loads(out.read_text())
    assert (report["count"], report["empty"]) == (8, 1)
    assert report["recall_at_biou"]["0.7"] == pytest.approx(3 / 7)
    assert [row["name"] for row in report["worst"]][:2] == ["im05", "im07"]
    assert "0.6233" in capsys.readouterr().out


def test_results_without_detections(tmp_path: Path) -> None:
    gt, pred = write(tmp_path / "gt.json", tube_truth()), write(tmp_path / "pred.json", [])
    out = tmp_path / "out.json"
    assert run("hq-ytvis", "--gt", gt, "--pred", pred, "--json", out) == 0
    assert json.loads(out.read_text())["mask"]["AP"] == 0
    empty = write(tmp_path / "gt.json", {**tube_truth(), "annotations": []})
    assert run("ytvis", "--gt", empty, "--pred", pred, "--json", out, "--plot", tmp_path / "p.png") == 0
    assert json.loads(out.read_text())["AP"] == -1
    assert np.isfinite(json.loads(out.read_text())["AR1"])


def three_images(names: bool = True) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and results of three images with ids 3, 7 and 12, each with a square of its own and a wrong one."""
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 4, "name": "one"}, {"id": 2}]}
    results = []
    for k, image in enumerate((7, 3, 12)):
        named = {"file_name": f"cam/left_{image:04d}.JPG"} if names else {}
        truth["images"].append({"id": image, "height": 100, "width": 100, **named})
        mask = square((100, 100), 10 * k, 20, 30)
        common = {"image_id": image, "category_id": 2 if k == 2 else 4}
        truth["annotations"].append({"id": k + 1, **common, "segmentation": rle(mask), "area": 900, "iscrowd": 0})
        results.append({**common, "score": 0.5 + 0.1 * k, "segmentation": rle(np.roll(mask, 3, axis=1))})
    return truth, results


def respell(row: dict[str, Any], spell: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    return {**row, **{key: spell(row[key]) for key in keys if key in row}}


@pytest.mark.parametrize("spell", [float, str, "{}.0".format], ids=["7.0", "'7'", "'7.0'"])
def test_ids_that_went_through_a_table_of_floats_or_texts_are_known(tmp_path: Path, spell: Any) -> None:
    truth, results = three_images()
    right = evaluate_coco(write(tmp_path / "gt.json", truth), write(tmp_path / "pred.json", results))
    assert 0 < right.mask.curves.stats()["AP"] < 1
    keys = ("id", "image_id", "category_id", "height", "width", "area")
    told = {table: [respell(row, spell, keys) for row in rows] for table, rows in truth.items()}
    rows = [respell(respell(row, spell, ("image_id", "category_id")), str, ("score",)) for row in results]
    for gt, pred in ((truth, rows), (told, results), (told, rows)):
        report = evaluate_coco(write(tmp_path / "gt.json", gt), write(tmp_path / "pred.json", pred))
        assert report.mask.curves.stats() == right.mask.curves.stats()
    tube = {**tube_truth(), "videos": [respell(row, spell, ("id", "length")) for row in tube_truth()["videos"]]}
    found = respell(tube_result(), spell, ("video_id", "category_id"))
    assert evaluate_tubes(write(tmp_path / "gt.json", tube), write(tmp_path / "pred.json", [found]))


@pytest.mark.parametrize(
    "spell",
    ["cam/left_{:04d}.JPG", "left_{:04d}.JPG", "left_{:04d}", "/data/left_{:04d}.png", "cam\\left_{:04d}.JPG"],
)
def test_results_may_name_the_file_of_an_image(tmp_path: Path, spell: str) -> None:
    truth, results = three_images()
    gt = write(tmp_path / "gt.json", truth)
    right = evaluate_coco(gt, write(tmp_path / "pred.json", results)).mask.curves.stats()
    named = [{**row, "image_id": spell.format(row["image_id"])} for row in results]
    assert evaluate_coco(gt, write(tmp_path / "pred.json", named)).mask.curves.stats() == right


def test_a_name_that_fits_no_image_or_two_is_refused(tmp_path: Path) -> None:
    truth, results = three_images()
    results[1]["image_id"] = "right_0003.jpg"
    gt, pred = write(tmp_path / "gt.json", truth), write(tmp_path / "pred.json", results)
    with pytest.raises(InputError, match=r"result 1 has image_id 'right_0003\.jpg', which the ground truth does not"):
        evaluate_coco(gt, pred)
    for row, name in zip(truth["images"], ("a/7.jpg", "b/7.jpg", "12.jpg"), strict=True):
        row["file_name"] = name
    results[1]["image_id"] = "7.jpg"
    gt, pred = write(tmp_path / "gt.json", truth), write(tmp_path / "pred.json", results)
    with pytest.raises(InputError, match=r"result 1 has image_id '7\.jpg', which fits several images \(3, 7\)"):
        evaluate_coco(gt, pred)


@pytest.mark.parametrize("command", ["ytvis", "hq-ytvis", "coco", "lvis"])
def test_annotations_that_are_null_are_annotations_that_are_not_there(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pred = write(tmp_path / "pred.json", [])
    for truth in ({"annotations": None}, {}):
        gt = write(tmp_path / "gt.json", {"videos": [], "images": [], "categories": [], **truth})
        assert run(command, "--gt", gt, "--pred", pred) == 3
        assert "no 'annotations' in it: the ground truth of this split is not public" in capsys.readouterr().err


def test_json_files_of_windows_are_read(tmp_path: Path) -> None:
    truth, results = three_images()
    right = evaluate_coco(write(tmp_path / "gt.json", truth), write(tmp_path / "pred.json", results))
    (tmp_path / "gt.json").write_text(json.dumps(truth), encoding="utf-8-sig")
    (tmp_path / "pred.json").write_text(json.dumps(results), encoding="utf-16")
    report = evaluate_coco(tmp_path / "gt.json", tmp_path / "pred.json")
    assert report.mask.curves.stats() == right.mask.curves.stats()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_split_written_on_windows_is_read(tmp_path: Path, encoding: str) -> None:
    maps = [square((40, 60), 10, 10 + t, 10) for t in range(4)]
    save_labels(tmp_path / "gt" / "Annotations" / "480p" / "bear", maps)
    save_labels(tmp_path / "pred" / "bear", maps)
    split = tmp_path / "gt" / "ImageSets" / "2017" / "val.txt"
    split.parent.mkdir(parents=True)
    split.write_bytes("bear \r\n\r\n".encode(encoding))
    report = evaluate_davis(tmp_path / "gt", tmp_path / "pred")
    assert [one.name for one in report.sequences] == ["bear"]
