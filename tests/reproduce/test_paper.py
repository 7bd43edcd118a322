"""The paper as a whole: every table and figure has a name, pictures are drawn, and one page shows what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench_media import Counting, coco, hq44k, picture, save_image, save_mask
from eval_media import square
from toys import tiny_sam
from vidseg.datasets.layouts import HQSEG_TRAIN
from vidseg.errors import InputError
from vidseg.sam.attention import token_attention
from vidseg.sam.build import save_sam
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.weights.fetch import weights_folder
from vidseg_pipelines.cli import main
from vidseg_pipelines.reproduce import model_cost, side_by_side
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.model_cost import Cost, parameters_of, read_qualities, sam_and_hq
from vidseg_pipelines.reproduce.page import run_all
from vidseg_pipelines.reproduce.paper import PAPER
from vidseg_pipelines.reproduce.tables import read_table
from vidseg_pipelines.reproduce.training_sets import count_sets

ALL = [*(f"table-{n}" for n in range(1, 17)), *(f"figure-{n}" for n in range(1, 15))]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    save_sam(tiny_sam(), tmp_path / "toy.safetensors")
    return tmp_path / "toy.safetensors"


def test_help_names_every_table_and_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(PAPER) == ALL
    assert main(["reproduce", "--help"]) == 0
    text = capsys.readouterr().out
    assert [name for name in ALL if not re.search(rf"\b{name}\b(?!\d)", text)] == []
    assert all(read_table(name).rows for name, (way, _) in PAPER.items() if way == "rows")


@pytest.mark.parametrize("name", ["table-17", "figure-0", "table-x"])
@pytest.mark.parametrize("flag", [True, False])
def test_what_the_paper_does_not_have_is_named_in_one_line(
    name: str, flag: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *(["--table"] if flag else []), name, "--data", "x"]) == 2
    error = capsys.readouterr().err
    assert name in error and error.count("\n") == 1


def test_a_drawing_of_the_authors_cannot_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "figure-3"]) == 2
    assert "the authors' drawing" in capsys.readouterr().err


def test_a_table_runs_by_its_name_alone(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hq44k(tmp_path / "data", 2)
    given = ["--data", str(tmp_path / "data"), "--model", str(toy), "--output", str(tmp_path / "out")]
    assert main(["reproduce", "table-16", *given]) == 0
    assert "table 16" in capsys.readouterr().out


def test_one_page_has_a_heading_per_table_and_says_what_is_missing(tmp_path: Path) -> None:
    hq44k(tmp_path, 2)
    coco(tmp_path)
    common = ReproduceConfig(data=tmp_path, output=tmp_path / "out", model="compact", limit=2)
    page, results = run_all(common, loaders=Counting().loaders())
    assert [line[3:].partition(":")[0] for line in page.splitlines() if line.startswith("## ")] == ALL
    assert "every row ran with the model compact" in page and str(tmp_path) in page
    done = next(r for r in results if r.ours and r.row.paper.get("average.mIoU") == 79.5)
    ours = done.ours["average.mIoU"]
    assert ours is not None
    line = next(line for line in page.splitlines() if line.startswith(f"| {done.row.label} (hq44k-val) | average.mIoU"))
    assert line == f"| {done.row.label} (hq44k-val) | average.mIoU | 79.5 | {ours:.1f} | {ours - 79.5:+.1f} |  |"
    lvis = next(line for line in page.splitlines() if "(lvis)" in line)
    assert "lvis/lvis_v1_val.json" in lvis and lvis.count("|") == 7
    assert "DIS5K/DIS-TR/im: no such folder" in page


def test_the_page_runs_nothing_twice_and_downloads_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hq44k(tmp_path, 1)
    first, again = Counting(), Counting()
    common = ReproduceConfig(data=tmp_path, output=tmp_path / "out", model="compact", limit=1)
    run_all(common, loaders=first.loaders())
    run_all(common, loaders=again.loaders())
    assert first.images > 0 and again.images == 0
    assert main(["reproduce", "--all", "--data", str(tmp_path), "--output", str(tmp_path / "b")]) == 3
    page = capsys.readouterr().out
    assert "weights 'sam-vit-l' are not here: run `vidseg weights fetch sam-vit-l` first" in page
    assert "--offline" not in page and str(weights_folder()) not in page  # others read it
    assert (tmp_path / "b" / "page.md").read_text() == page
    assert main(["reproduce", "coco", "--all", "--data", str(tmp_path)]) == 2


def write_sets(root: Path, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        images, masks = HQSEG_TRAIN[name]
        for k in range(number + 1):
            save_image(root / images / f"i{k}.jpg", k)
            save_mask(root / masks / f"i{k}.png", square((48, 64), 4, 6, 20))


def test_training_sets_are_counted_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sets(tmp_path, ("dis5k", "fss", "duts-tr", "duts-te"))
    counted = {row.name: row.ours for row in count_sets(tmp_path)}
    assert counted == {"dis5k": 1, "thinobject": None, "fss": 2, "duts": 7, "ecssd": None, "msra": None, "total": 10}
    target = tmp_path / "sets.png"
    assert main(["reproduce", "table-14", "--data", str(tmp_path), "--json", "--plot", str(target)]) == 5
    rows = {row["set"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["total"]["paper"] == 44320 and rows["duts"] == {"set": "duts", "paper": 15572, "ours": 7, "missing": ""}
    with Image.open(target) as sheet:
        assert sheet.height == 3 * 164  # a line per set that is there
    assert main(["reproduce", "table-14", "--data", str(tmp_path / "none")]) == 3
    assert main(["reproduce", "figure-8", "--data", str(tmp_path / "none")]) == 3


def write_boxes(root: Path) -> tuple[Path, Path]:
    sizes = [(48, 64), (64, 48)]
    for k, size in enumerate(sizes):
        save_image(root / "images" / f"p{k}.jpg", k, size)
    rows = [{"image_id": f"p{k}", "category_id": 1, "bbox": [5, 6, 30, 28], "score": 0.9} for k in range(2)]
    (root / "boxes.json").write_text(json.dumps([*rows, {**rows[0], "bbox": [40, 8, 20, 20]}]))
    return root / "images", root / "boxes.json"


def test_sheets_show_both_masks_and_the_boxes(toy: Path, tmp_path: Path) -> None:
    images, boxes = write_boxes(tmp_path)
    found = side_by_side.boxes_of_images(images, boxes)
    assert [(path.name, b.tolist()) for path, b in found] == [
        ("p0.jpg", [[5, 6, 35, 34], [40, 8, 60, 28]]),
        ("p1.jpg", [[5, 6, 35, 34]]),
    ]
    target = tmp_path / "sheet.png"
    given = ["--images", str(images), "--boxes", str(boxes), "--model", str(toy), "--plot", str(target)]
    for name, lines in (("figure-7", 2), ("figure-6", 3)):
        assert main(["reproduce", name, *given]) == 0
        with Image.open(target) as sheet:
            pixels = np.array(sheet.convert("RGB")).astype(int)
        assert pixels.shape[:2] == (lines * (round(64 * 320 / 48) + 4), 90 + 2 * 324)
        red = (pixels == (255, 0, 0)).all(-1)
        assert all(red[y : y + 240, 90:410].sum() > 100 for y in range(0, len(pixels), len(pixels) // lines))
    upper, lower = np.split(pixels, 3)[1:]
    assert (upper != lower).any()


def test_yolo_boxes_are_shares_of_their_own_image(tmp_path: Path) -> None:
    images, _ = write_boxes(tmp_path)
    (tmp_path / "labels").mkdir()
    for k in range(2):
        (tmp_path / "labels" / f"p{k}.txt").write_text("0 0.5 0.5 0.5 0.25\n")
    found = side_by_side.boxes_of_images(images, tmp_path / "labels")
    assert [b.tolist() for _, b in found] == [[[16, 18, 48, 30]], [[12, 24, 36, 40]]]


def test_sheets_without_images_or_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "figure-9", "--images", str(tmp_path)]) == 2
    assert "figure-9 --images DIR --boxes FILE" in capsys.readouterr().err
    with pytest.raises(InputError, match="no images"):
        side_by_side.boxes_of_images(tmp_path, tmp_path / "b.json")


def test_attention_is_the_softmax_of_the_last_layer() -> None:
    sam = tiny_sam()
    (features,) = sam.encode([picture(1, (96, 128))])
    prompts = PromptBatch(boxes=np.array([[10, 12, 60, 70], [4, 4, 20, 90]], np.float32))
    layer = sam.mask_decoder.transformer.final_attn_token_to_image
    outputs: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _, given, out: outputs.extend([*given, out]))
    maps = token_attention(sam, features, prompts)
    hook.remove()
    q, k, v, out = outputs
    heads = [layer._heads(p(x)) for p, x in ((layer.q_proj, q), (layer.k_proj, k), (layer.v_proj, v))]
    weights = torch.softmax(heads[0] @ heads[1].transpose(-1, -2) / heads[0].shape[-1] ** 0.5, -1)
    torch.testing.assert_close(layer.out_proj((weights @ heads[2]).transpose(1, 2).flatten(2)), out)
    assert maps.shape == (2, 2, 96, 128) and torch.all((maps >= 0) & (maps <= 1))
    peak = weights.mean(1)[:, [1, 5]].unflatten(-1, features.geometry.grid)
    for place in np.ndindex(2, 2):
        y, x = np.unravel_index(int(peak[place].argmax()), features.geometry.grid)
        where = np.unravel_index(int(maps[place].argmax()), (96, 128))
        assert abs(where[0] - (y + 0.5) * 16) <= 16 and abs(where[1] - (x + 0.5) * 16) <= 16


def test_the_image_command_draws_attention(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_image(tmp_path / "a.png", 1)
    given = ["image", str(tmp_path / "a.png"), "--model", str(toy), "--output", str(tmp_path / "m"), "--attention"]
    assert main(given) == 2
    assert "add --box or --point" in capsys.readouterr().err
    assert main([*given, "--box", "5,6,30,40", "--point", "2@20,20"]) == 0
    with Image.open(tmp_path / "m" / "a_attention.jpg") as drawn:
        assert drawn.size == (3 * 64, 2 * 48)
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"a.png", "a.json", "a_overlay.jpg", "a_attention.jpg"}


def test_costs_are_those_of_the_paper_where_they_are_no_matter_of_the_machine() -> None:
    pair = sam_and_hq("sam-hq-vit-l")
    assert parameters_of(pair["SAM"])[0] == pytest.approx(1191, rel=0.02)
    assert parameters_of(pair["HQ-SAM"]) == pytest.approx((5.1, 1196.1), rel=0.02)


def test_table_1_measures_a_network_in_its_own_process(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output", str(tmp_path / "out"), "--limit", "1", "--device", "cpu", "--json"]
    assert main(["reproduce", "table-1", "--model", str(toy), *out]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads((tmp_path / "out" / "table.json").read_text())
    assert content["machine"]["device"] == "cpu" and content["machine"]["kind"] and content["machine"]["dtype"]
    rows = content["rows"]
    assert rows["HQ-SAM"]["learnable_mib"] < rows["HQ-SAM"]["total_mib"]
    assert rows["SAM"]["learnable_mib"] == rows["SAM"]["total_mib"] < rows["HQ-SAM"]["total_mib"]
    assert all(row["fps"] > 0 and row["peak_mib"] > 100 for row in rows.values())
    assert main(["reproduce", "table-1", "--model", "sam-vit-b", *out]) == 2


def test_figure_2_is_drawn_from_the_scores_that_are_there(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model_cost, "measure_cost", lambda *_: Cost(1.0, 20.0, 4.0, 300.0))
    for place, benchmark, key in (("a", "hq44k-val", {"average": {"mIoU": 0.7}}), ("b", "davis2017", {"J": 0.1})):
        (tmp_path / "runs" / place).mkdir(parents=True)
        content = {"benchmark": benchmark, "protocol": {"model": str(toy)}, "scores": {"sam": key, "hq": key}}
        (tmp_path / "runs" / place / "score.json").write_text(json.dumps(content))
    assert read_qualities(tmp_path / "runs") == {
        f"{toy}, sam": ("mIoU (four sets)", 70.0),
        f"{toy}, hq": ("mIoU (four sets)", 70.0),
    }
    target = tmp_path / "f.png"
    given = ["reproduce", "figure-2", "--plot", str(target), "--device", "cpu"]
    assert main([*given, "--output", str(tmp_path / "runs")]) == 0
    assert "70.0" in capsys.readouterr().out
    with Image.open(target) as drawn:
        assert len(drawn.convert("RGB").getcolors(10000) or []) > 3
    assert main([*given, "--output", str(tmp_path / "empty")]) == 3
