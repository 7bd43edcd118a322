"""Whole benchmarks on tiny data: the scores are the evaluators', and only what is missing is computed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench_media import SIZE, Counting, Stop, coco, davis, hq44k, read, save_image, save_mask, tubes
from eval_media import square, write
from toys import BoxesEverywhere
from vidseg.config import RunConfig
from vidseg.datasets.layouts import HQSEG_VAL
from vidseg.errors import InputError, UsageError
from vidseg.evaluation.davis import evaluate_davis
from vidseg.evaluation.image_ap import evaluate_coco
from vidseg.evaluation.region import evaluate_masks
from vidseg.evaluation.tube_ap import evaluate_tubes
from vidseg.masks.rle import decode
from vidseg.sam.prompt_batch import PromptBatch
from vidseg_pipelines.cli import main
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.run import run_benchmark
from vidseg_pipelines.reproduce.store import folder_lock
from vidseg_pipelines.reproduce.task import unpack


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("option", ["window=[", " =1", "window"])
def test_a_wrong_setting_of_the_tracker_is_a_wrong_usage(tmp_path: Path, option: str, capsys: Any) -> None:
    davis(tmp_path)
    words = ["reproduce", "davis2017", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main([*words, "--tracker-option", option]) == 2
    assert f"--tracker-option {option.strip()}" in capsys.readouterr().err


def test_mask_sets_score_as_the_evaluator_does(tmp_path: Path) -> None:
    counting = Counting()
    result = counting.run("hq44k-val", hq44k(tmp_path))
    assert counting.images == 8  # once per image for both masks
    assert list(result.scores) == ["sam", "hq"]
    records = {str(line["item"]): line for line in lines(tmp_path / "out")}
    for name, (_, masks) in HQSEG_VAL.items():
        for kind in ("sam", "hq"):
            folder = tmp_path / "by-hand" / kind / name
            for stem in ("i0", "i1"):
                record = records[f"{name}/{stem}"]
                save_mask(folder / f"{stem}.png", decode(unpack(record["masks"][kind][0], record["size"])))
            by_hand = evaluate_masks(tmp_path / masks, folder)
            assert {k: result.scores[kind][name][k] for k in by_hand.summary()} == by_hand.summary()
            assert result.scores[kind][name]["recall@0.5"] == by_hand.recall()["0.5"]
    parts = [result.scores["hq"][name]["mBIoU"] for name in HQSEG_VAL]
    assert result.scores["hq"]["average"]["mBIoU"] == pytest.approx(np.mean(parts), abs=1e-12)
    assert result.scores["hq"]["dis5k-vd"]["empty"] == 1  # nothing to find, nothing asked
    assert read(tmp_path / "out" / "score.json")["scores"] == result.scores


def test_masks_are_those_of_the_network(tmp_path: Path) -> None:
    counting = Counting()
    counting.run("hq44k-val", hq44k(tmp_path), sets="coift", masks="sum")
    record = lines(tmp_path / "out")[0]
    image = np.asarray(Image.open(tmp_path / HQSEG_VAL["coift"][0] / "i0.jpg"))
    box = np.array([[6, 5, 6 + 12, 5 + 12]], np.float32)  # a square of 13 pixels: the last one is inclusive
    (answer,) = counting.sam.decode(counting.sam.encode([image]), [PromptBatch(boxes=box)], "sum")
    wanted = (answer.upsampled()[0, 0] > 0).numpy()
    assert wanted.any()
    assert (decode(unpack(record["masks"]["sum"][0], record["size"])) == wanted).all()


def test_the_published_evaluator_squashes(tmp_path: Path) -> None:
    counting = Counting()
    counting.sam.config = replace(counting.sam.config, pad="square")
    result = counting.run("hq44k-val", hq44k(tmp_path), sets="coift", masks="hq")
    assert "square" in str(result.protocol["fit"])
    image = np.asarray(Image.open(tmp_path / HQSEG_VAL["coift"][0] / "i0.jpg")).astype(np.float32)
    side = counting.sam.config.image_size
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    stretched = torch.nn.functional.interpolate(planes, (side, side), mode="bilinear", align_corners=False)
    pixels = stretched[0].permute(1, 2, 0).numpy().astype(np.uint8)
    mask = torch.from_numpy(square(SIZE, 5, 6, 13).astype(np.float32) * 255)[None, None]
    rows, columns = np.nonzero(
        torch.nn.functional.interpolate(mask, (side, side), mode="bilinear", align_corners=False)[0, 0].numpy() > 128
    )
    box = np.array([[columns.min(), rows.min(), columns.max(), rows.max()]], np.float32)
    (answer,) = counting.sam.decode(counting.sam.encode([pixels]), [PromptBatch(boxes=box)], "hq")
    logits = torch.nn.functional.interpolate(answer.logits, SIZE, mode="bilinear", align_corners=False)
    record = lines(tmp_path / "out")[0]
    assert (decode(unpack(record["masks"]["hq"][0], record["size"])) == (logits[0, 0] > 0).numpy()).all()


def test_detector_boxes_keep_score_and_class(tmp_path: Path) -> None:
    truth, boxes = coco(tmp_path)
    counting = Counting()
    result = counting.run("coco", tmp_path, boxes=boxes)
    assert counting.images == 2  # on the third image nothing was detected
    assert list(result.scores) == ["sam", "sum"]
    for name in result.scores:
        results = tmp_path / "out" / f"results-{name}.json"
        told = sorted((r["image_id"], r["category_id"], r["score"]) for r in read(results))
        assert told == sorted((r["image_id"], r["category_id"], r["score"]) for r in read(boxes))
        by_hand = evaluate_coco(truth, results, ratio=0.02)
        assert by_hand.boundary is not None
        assert result.scores[name]["mask"] == by_hand.stats(by_hand.mask)
        assert result.scores[name]["boundary"] == by_hand.stats(by_hand.boundary)
    assert str(boxes) in str(result.protocol["prompt"])
    first, second = (r["segmentation"] for r in read(tmp_path / "out" / "results-sam.json") if r["image_id"] == 1)
    assert first != second  # every object has the mask of its own box


def test_truth_boxes_are_called_an_upper_bound(tmp_path: Path) -> None:
    coco(tmp_path)
    result = Counting().run("coco", tmp_path, prompt="gt-boxes", limit=2)
    assert "upper bound" in str(result.protocol["prompt"])
    assert "first 2" in str(result.protocol["part"])
    assert result.protocol["images"] == 2


def test_uvo_takes_the_best_boxes_of_any_class(tmp_path: Path) -> None:
    truth, boxes = coco(tmp_path)
    content = read(truth)
    one = [{**row, "category_id": 1} for row in content["annotations"]]
    file = write(tmp_path / "uvo.json", {**content, "annotations": one, "categories": [{"id": 1, "name": "object"}]})
    write(boxes, [{**row, "category_id": 77} for row in read(boxes)] * 60)
    images = truth.parents[1] / "val2017"
    result = Counting().run("uvo", tmp_path, annotations=file, images=images, boxes=boxes, limit=1)
    results = read(tmp_path / "out" / "results-sum.json")
    assert len(results) == 100
    assert {r["category_id"] for r in results} == {1}
    assert min(r["score"] for r in results) == 0.25
    assert sum(r["score"] > 0.5 for r in results) == 60  # the best ones first
    assert result.scores["sum"].keys() == {"mask", "boundary", "strict"}


@pytest.mark.parametrize("prompt", ["boxes-file", "gt-boxes", "tracker"])
def test_tubes_score_as_the_evaluator_does(tmp_path: Path, prompt: str) -> None:
    truth, found = tubes(tmp_path, "ytvis_2019/train", "hq-ytvis/ytvis_hq-test.json")
    config = ReproduceConfig(benchmark="hq-ytvis", data=tmp_path, output=tmp_path / "out")
    counting = Counting()
    loaders = counting.loaders()
    if prompt == "boxes-file":
        config = replace(config, boxes=found)
    elif prompt == "gt-boxes":
        config = replace(config, prompt="gt-boxes")
    else:
        config = replace(config, tracker="mask2former", tracker_option=("weights=compact",))
        loaders = replace(loaders, tracker=lambda config: Labelled(config))
    result = run_benchmark(config, loaders=loaders)
    results = tmp_path / "out" / "results-sum.json"
    by_hand = evaluate_tubes(truth, results, ratio=0.02)
    assert by_hand.boundary is not None
    assert result.scores["sum"]["boundary"] == by_hand.boundary.curves.stats()
    assert result.scores["sum"]["mask"] == by_hand.mask.curves.stats()
    assert counting.images == (6 if prompt == "tracker" else 5)  # a frame without objects is not encoded
    if prompt != "tracker":
        assert [s is None for s in read(results)[1]["segmentations"]] == [False, True, False]
        assert read(results)[0]["score"] == (0.9 if prompt == "boxes-file" else 1.0)


class Labelled(BoxesEverywhere):
    """Two objects of the class called "one"; the settings are those that report everything."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(2)
        assert config.tracker_options == {
            "weights": "compact",
            "mode": "offline",
            "min_score": 0.0,
            "classes": "numbers",
        }

    def step(self, frame, prompts=()):  # type: ignore[no-untyped-def]
        return [replace(t, labels=("one", "1")) for t in super().step(frame, prompts)]


def test_a_private_ground_truth_gives_files_and_no_score(tmp_path: Path) -> None:
    truth, found = tubes(tmp_path)
    content = read(truth)
    del content["annotations"]
    write(truth, content)
    result = Counting().run("ytvis2019", tmp_path, boxes=found)
    assert result.scores == {"sam": {}, "sum": {}}
    assert "not public" in result.lacking[0]
    assert len(read(tmp_path / "out" / "results-sum.json")) == 2
    with pytest.raises(InputError, match="not public"):
        Counting().run("ytvis2019", tmp_path, prompt="gt-boxes", output=tmp_path / "other")


def test_sginw_is_the_mean_of_its_sets(tmp_path: Path) -> None:
    truth, boxes = coco(tmp_path)
    folder = tmp_path / "found"
    folder.mkdir()
    for name in ("Cows", "Hand"):
        target = tmp_path / "seginw" / name / "valid"
        target.mkdir(parents=True)
        write(target / "_annotations_min1cat.coco.json", read(truth))
        for image in read(truth)["images"]:
            save_image(target / image["file_name"], image["id"] + len(name))
        write(folder / f"{name}.json", read(boxes))
    result = Counting().run("sginw", tmp_path, boxes=folder, sets="Cows,Hand")
    parts = [result.scores["sum"][name]["mask"]["AP"] for name in ("Cows", "Hand")]
    assert result.scores["sum"]["mean"]["AP"] == pytest.approx(np.mean(parts), abs=1e-12)
    with pytest.raises(InputError, match=r"Airplane-Parts.* missing"):
        Counting().run("sginw", tmp_path, boxes=folder)


@pytest.mark.parametrize("refine", ["box", "none"])
def test_davis_scores_as_the_evaluator_does(tmp_path: Path, refine: str) -> None:
    root = davis(tmp_path)
    counting = Counting()
    result = counting.run("davis2017", tmp_path, refine=refine)
    assert set(result.scores) == ({"sam", "sum"} if refine == "box" else {"tracker"})
    for name, scores in result.scores.items():
        assert scores == evaluate_davis(root, tmp_path / "out" / "predictions" / name).summary()
    if refine == "box":
        folders = [tmp_path / "out" / "predictions" / name / "b" / "00002.png" for name in ("sam", "sum")]
        assert folders[0].read_bytes() != folders[1].read_bytes()
    done = Counting()
    assert done.run("davis2017", root, refine=refine, output=tmp_path / "again", limit=1).computed == 1


def test_sets_without_objects_and_ids_from_0(tmp_path: Path) -> None:
    truth = read(coco(tmp_path)[0])

    def run(first_id: int) -> Any:
        for name, keep in (("Cows", 3), ("Hand", 0)):
            target = tmp_path / "seginw" / name / "valid"
            target.mkdir(parents=True, exist_ok=True)
            rows = [{**row, "id": row["id"] - 1 + first_id} for row in truth["annotations"][:keep]]
            write(target / "_annotations_min1cat.coco.json", {**truth, "annotations": rows})
            for image in truth["images"]:
                save_image(target / image["file_name"], image["id"])
        output = tmp_path / f"out{first_id}"
        return Counting().run("sginw", tmp_path, prompt="gt-boxes", sets="Cows,Hand", output=output).scores

    scores = run(0)
    assert scores["sam"]["Hand"]["mask"]["AP"] == -1
    assert scores["sam"]["mean"]["AP"] == scores["sam"]["Cows"]["mask"]["AP"] >= 0
    assert [row["id"] for row in read(tmp_path / "out0" / "ground-truth-Cows.json")["annotations"]] == [1, 2, 3]
    assert run(1) == scores


def test_a_second_call_on_a_folder_is_refused(tmp_path: Path) -> None:
    hq44k(tmp_path)
    with folder_lock(tmp_path / "out"), pytest.raises(UsageError, match="another call works on output folder"):
        Counting().run("hq44k-val", tmp_path, sets="coift", limit=1)
    assert Counting().run("hq44k-val", tmp_path, sets="coift", limit=1).computed == 1


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    hq44k(tmp_path / "whole")
    whole = Counting().run("hq44k-val", tmp_path / "whole", prompt="noisy-boxes")
    hq44k(tmp_path / "cut")
    with pytest.raises(Stop):
        Counting(stop_at=3).run("hq44k-val", tmp_path / "cut", prompt="noisy-boxes")
    journal = tmp_path / "cut" / "out" / "results.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"item":"coift/i1","si')  # a kill in the middle of a line
    rest = Counting()
    again = rest.run("hq44k-val", tmp_path / "cut", prompt="noisy-boxes")
    assert (rest.images, again.computed) == (5, 5)
    assert again.scores == whole.scores
    assert journal.read_bytes() == (tmp_path / "whole" / "out" / "results.jsonl").read_bytes()
    last = Counting()
    assert last.run("hq44k-val", tmp_path / "cut", prompt="noisy-boxes").scores == whole.scores
    assert last.loads == 0  # nothing to do: no network is loaded


def test_a_part_can_be_widened(tmp_path: Path) -> None:
    hq44k(tmp_path)
    assert Counting().run("hq44k-val", tmp_path, sets="coift", limit=1).computed == 1
    counting = Counting()
    assert counting.run("hq44k-val", tmp_path).computed == 7
    assert counting.images == 7


def test_other_settings_are_refused_and_can_replace(tmp_path: Path) -> None:
    hq44k(tmp_path)
    Counting().run("hq44k-val", tmp_path, sets="coift")
    with pytest.raises(UsageError, match=r"config.seed: 0 -> 1.*--overwrite"):
        Counting().run("hq44k-val", tmp_path, sets="coift", seed=1)
    (tmp_path / "out" / "mine.txt").write_text("kept")
    counting = Counting()
    counting.run("hq44k-val", tmp_path, sets="coift", seed=1, overwrite=True)
    assert counting.images == 2
    assert (tmp_path / "out" / "mine.txt").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(UsageError, match="holds no benchmark run"):
        Counting().run("hq44k-val", tmp_path, output=tmp_path / "full")


def test_other_boxes_are_refused(tmp_path: Path) -> None:
    _, boxes = coco(tmp_path)
    Counting().run("coco", tmp_path, boxes=boxes)
    write(boxes, read(boxes)[:1])
    with pytest.raises(UsageError, match="boxes"):
        Counting().run("coco", tmp_path, boxes=boxes)


def test_missing_data_says_what_goes_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "coco", "--data", str(tmp_path), "--prompt", "gt-boxes"]) == 3
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "coco/annotations/instances_val2017.json" in told
    assert "coco/val2017" in told
    davis(tmp_path)
    (tmp_path / "DAVIS" / "JPEGImages" / "480p" / "a" / "00002.jpg").unlink()
    with pytest.raises(InputError, match="3 frames, 4 annotations"):
        Counting().run("davis2017", tmp_path)


def test_everything_is_checked_before_a_network_is_loaded(tmp_path: Path) -> None:
    truth, boxes = coco(tmp_path)
    good, found = read(truth), read(boxes)

    def fails(words: str, **settings: object) -> None:
        counting = Counting()
        with pytest.raises(InputError, match=words):
            counting.run("coco", tmp_path, **{"boxes": boxes, **settings})
        assert counting.loads == 0

    write(boxes, [{**found[0], "image_id": 9}])
    fails("image_id 9")
    write(boxes, [{**found[0], "bbox": [1, 2, -3, 4]}])
    fails("width, height")
    write(boxes, found)
    save_image(tmp_path / "coco" / "val2017" / "000000000002.jpg", 2, (20, 30))
    fails("30x20 pixels")
    (tmp_path / "coco" / "val2017" / "000000000002.jpg").unlink()
    fails("not found; 1 of 1 images")
    fails("first 1|area", limit=1, annotations=write(tmp_path / "x.json", without_area(good)))
    hq44k(tmp_path)
    save_mask(tmp_path / HQSEG_VAL["hrsod"][1] / "i0.png", square((20, 30), 2, 2, 5))
    with pytest.raises(InputError, match="30x20 pixels"):
        Counting().run("hq44k-val", tmp_path)
    (tmp_path / HQSEG_VAL["hrsod"][1] / "i0.png").unlink()
    with pytest.raises(InputError, match="1 of 2 images have no mask"):
        Counting().run("hq44k-val", tmp_path)


def without_area(content: dict) -> dict:
    return {**content, "annotations": [{k: v for k, v in row.items() if k != "area"} for row in content["annotations"]]}


@pytest.mark.parametrize(
    ("benchmark", "settings", "words"),
    [
        ("coc", {}, "did you mean 'coco'"),
        ("coco", {}, "--boxes FILE; or, as an upper bound"),
        ("davis2017", {"prompt": "gt-boxes"}, "cannot be prompted"),
        ("davis2017", {"tracker": "xmen"}, "did you mean 'xmem'"),
        ("hq44k-val", {"masks": "sums"}, "did you mean 'sum'"),
        ("hq44k-val", {"sets": "coft"}, "did you mean 'coift'"),
        ("hq44k-val", {"prompt": "noisy-boxes", "noise": 1.5}, "scale of 0 to 1"),
        ("hq44k-val", {"points": 0}, "1 to 100"),
    ],
)
def test_wrong_settings(tmp_path: Path, benchmark: str, settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Counting().run(benchmark, tmp_path, **settings)


def test_an_hq_mask_of_a_plain_sam_is_refused(tmp_path: Path) -> None:
    counting = Counting()
    counting.sam.config = replace(counting.sam.config, hq=False, output="sam")
    with pytest.raises(UsageError, match="plain SAM"):
        counting.run("hq44k-val", hq44k(tmp_path), masks="hq")


def test_coarse_masks_of_big(tmp_path: Path) -> None:
    folder = tmp_path / "BIG" / "test"
    for k in range(2):
        save_image(folder / f"n{k}_im.jpg", k)
        save_mask(folder / f"n{k}_gt.png", square(SIZE, 10, 10, 20))
        save_mask(folder / f"n{k}_seg.png", square(SIZE, 12, 8, 20))
    result = Counting().run("big", tmp_path, prompt="coarse-masks")
    assert "of the data set" in str(result.protocol["prompt"])
    boxes = Counting().run("big", tmp_path, output=tmp_path / "boxes")
    assert boxes.scores != result.scores
    (folder / "n1_seg.png").unlink()
    with pytest.raises(InputError, match="n1_seg"):
        Counting().run("big", tmp_path, prompt="coarse-masks", output=tmp_path / "new")


def test_the_command_with_the_embedded_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hq44k(tmp_path, 1)
    args = ["reproduce", "hq44k-val", "--data", str(tmp_path), "--sets", "coift", "--device", "cpu"]
    assert main([*args, "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "protocol" in told
    assert "coift.mBIoU" in told
    assert main([*args, "--output", str(tmp_path / "out"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == read(tmp_path / "out" / "score.json")
    assert content["scores"]["hq"]["coift"]["count"] == 1
    assert main(["reproduce"]) == 2
