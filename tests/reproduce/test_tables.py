"""The tables of the paper: every file is sound, rows share runs, what is missing is named and the rest is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import paths
from bench_media import Counting, coco, hq44k, read
from vidseg.config import from_mapping, load_yaml
from vidseg.datasets.layouts import HQSEG_VAL
from vidseg.errors import InputError, UsageError
from vidseg.training.recipe import Recipe
from vidseg.training.trainer import network_of, result_name
from vidseg.weights.catalog import CATALOG
from vidseg_pipelines.cli import main
from vidseg_pipelines.reproduce import figure
from vidseg_pipelines.reproduce.benchmarks import BENCHMARKS, resolve
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.figure import check_figure, draw_figure
from vidseg_pipelines.reproduce.tables import (
    RowResult,
    check_some,
    read_table,
    run_table,
    show_table,
    table_folder,
    write_table,
)

TABLES = ("2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "15", "16")


def test_every_table_is_there() -> None:
    wanted = {f"table-{n}" for n in TABLES} | {"figure-4", "figure-5"}
    assert {path.stem for path in table_folder().glob("*.yaml")} == wanted


@pytest.mark.parametrize("name", sorted(path.stem for path in table_folder().glob("*.yaml")))
def test_rows_can_be_run(name: str) -> None:
    table = read_table(name)
    seen = set()
    for row in table.rows:
        config = from_mapping(ReproduceConfig, row.run, where=row.label)
        benchmark, decided = resolve(config)
        assert decided.scored_masks in {("sam",), ("hq",), ("sum",), ("given",)}
        made = f"runs/{Path(row.train).stem}/"
        given = {""} if config.masks_from else set()
        expected = {f"{made}sam_hq.pth", f"{made}weights.safetensors", f"sam-vit-l+{made}weights.safetensors"}
        assert config.model in {*CATALOG, *expected, *given}
        assert config.model in {*CATALOG, *given} or (paths.ROOT / row.train).is_file()
        allowed = {*benchmark.columns, *(f"{s}.recall@0.{k}" for s in HQSEG_VAL for k in range(5, 10))}
        assert set(row.paper) <= allowed, row.label
        if row.train:
            recipe = load_yaml(Recipe, paths.ROOT / row.train)
            name = result_name(recipe, network_of(recipe, hq=True))
            assert Path(config.model).name == name and ("+" in config.model) == bool(recipe.lora or recipe.adapters)
        assert config.boxes is None or str(config.boxes) in row.needs
        assert all(value is None or 0 <= value < 100 for value in row.paper.values())
        seen.add((row.label, config.benchmark))
    assert len(seen) == len(table.rows)


def test_a_spot_check_of_the_printed_numbers() -> None:
    row = next(r for r in read_table("table-7").rows if r.label == "HQ-SAM" and r.run["benchmark"] == "lvis")
    assert row.paper == {
        "strict.AP": 32.5,
        "strict.AP75": 33.5,
        "boundary.AP": 38.8,
        "boundary.AP75": 41.2,
        "mask.AP": 43.9,
    }


def test_rows_share_a_run_and_the_numbers_stand_beside_the_papers(tmp_path: Path) -> None:
    hq44k(tmp_path)
    table, counting = read_table("table-13"), Counting()
    common = ReproduceConfig(data=tmp_path, output=tmp_path / "out", model="compact", limit=1)
    results = run_table(table, common, loaders=counting.loaders())
    assert counting.images == 3 * 4  # three kinds of boxes, SAM and HQ-SAM in one pass
    assert check_some(results) == 0
    scores = read(next((tmp_path / "out").glob("hq44k-val-*/score.json")))["scores"]
    assert any(r.ours["average.mIoU"] == 100 * scores["hq"]["average"]["mIoU"] for r in results)
    shown = show_table(table, results, common)
    ours = results[0].ours["average.mIoU"]
    line = next(line for line in shown.splitlines() if line.startswith("SAM, no noise"))
    assert line.split()[3:5] == [f"{ours:.1f}", "79.5"]
    assert "every row ran with --model compact" in shown
    content = write_table(tmp_path / "table.json", table, results)
    assert read(tmp_path / "table.json") == content
    assert content["rows"][1]["paper"] == {"average.mIoU": 89.1, "average.mBIoU": 81.8}
    again = Counting()
    run_table(table, common, loaders=again.loaders())
    assert again.images == 0


def test_what_is_missing_is_named_and_the_rest_is_run(tmp_path: Path) -> None:
    coco(tmp_path)
    (tmp_path / "detections").mkdir()
    (tmp_path / "boxes.json").rename(tmp_path / "detections" / "coco-focalnet-dino.json")
    common = ReproduceConfig(data=tmp_path, output=tmp_path / "out", model="compact")
    table = read_table("table-7")
    results = run_table(table, common, loaders=Counting().loaders())
    assert [bool(r.missing) for r in results] == [False, False, True, True]
    assert "lvis/lvis_v1_val.json" in results[2].missing
    assert "detections/lvis-vitdet-h.json" in results[2].missing
    assert check_some(results) == 5
    assert show_table(table, results, common).count("lvis/lvis_v1_val.json") == 1  # not once per row
    first, second = (r.row.label for r in results[2:])
    assert f"not run: {first} (lvis), {second} (lvis): " in show_table(table, results, common)
    with pytest.raises(InputError, match="no row could be run"):
        check_some(results[2:])


@pytest.mark.parametrize("what", [["--all"], ["table-10"], ["hq44k-val"], ["davis2017"]], ids=" ".join)
def test_a_missing_data_folder_is_one_line_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *what, "--data", "none"]) == 3
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "vidseg: none: no such data folder\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "steps"), [("figure-4", 5), ("figure-5", 5), ("table-6", 2), ("table-13", 3)])
def test_figures_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, steps: int) -> None:
    table = read_table(name)
    results = [RowResult(row, "", dict.fromkeys(row.paper, 10.0 * k)) for k, row in enumerate(table.rows)]
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(figure, "draw_curves", lambda *given: drawn.update(curves=given[3], ticks=given[4]))
    check_figure(table)
    draw_figure(tmp_path / "f.png", table, results)
    assert len(drawn["ticks"]) == steps
    assert all(name.startswith(("SAM: ", "HQ-SAM: ")) for name in drawn["curves"])
    for points in drawn["curves"].values():
        assert [place for place, _ in points] == list(drawn["ticks"])
    monkeypatch.undo()
    draw_figure(tmp_path / "f.png", table, [*results[1:], RowResult(table.rows[0], "", {}, "no data")])
    with Image.open(tmp_path / "f.png") as image:
        assert len(image.convert("RGB").getcolors(10000) or []) > 5


def test_flags_that_rows_decide_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for table, flags, words in (
        ("figure-4", ("--sets", "coift"), "--sets is for one benchmark"),
        ("figure-4", ("--tracker", "xmem"), "--tracker xmem: no row"),
        ("table-12", ("--tracker-option", "a=1"), "--tracker-option is for one benchmark"),
        ("table-10", ("--plot", "f.png"), "--plot: no curves"),
    ):
        assert main(["reproduce", "--table", table, "--data", str(tmp_path), *flags]) == 2
        assert words in capsys.readouterr().err
    assert main(["reproduce", "coco", "--data", str(tmp_path), "--plot", "f.png"]) == 2


def test_no_number_is_no_number(tmp_path: Path) -> None:
    coco(tmp_path)
    row = {"label": "x", "run": {"benchmark": "coco", "masks": "sam", "prompt": "gt-boxes"}, "paper": {"mask.APl": 1.0}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"title": "own", "rows": [row]}))
    common = ReproduceConfig(data=tmp_path, output=tmp_path / "out")
    (result,) = run_table(read_table(str(tmp_path / "own.yaml")), common, loaders=Counting().loaders())
    assert result.ours == {"mask.APl": None}  # there is no large object


def test_the_papers_column_is_where_it_printed_numbers(tmp_path: Path) -> None:
    for name, columns in (("figure-4", 0), ("table-13", 2)):
        table = read_table(name)
        results = [RowResult(row, "b", dict.fromkeys(row.paper, 1.0)) for row in table.rows]
        header = show_table(table, results, ReproduceConfig()).splitlines()[2]
        assert header.split().count("paper") == columns


def test_weights_of_an_ablation_say_how_they_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hq44k(tmp_path)
    monkeypatch.chdir(tmp_path)
    common = ReproduceConfig(data=tmp_path, output=tmp_path / "out", offline=True)
    results = run_table(read_table("table-2"), common)
    row = next(r for r in results if "Boundary" in r.row.label)
    assert "runs/hq-vit-l-boundary-loss/sam_hq.pth" in row.missing
    assert "vidseg train hq --config configs/training/hq-vit-l-boundary-loss.yaml" in row.missing
    assert "vidseg weights fetch sam-vit-l" in results[0].missing


def test_weights_that_come_later_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hq44k(tmp_path)
    row = {
        "label": "ours",
        "run": {"benchmark": "hq44k-val", "model": str(tmp_path / "w.pth"), "masks": "hq"},
        "paper": {"average.mIoU": 50.0},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"title": "own", "rows": [row]}))
    common = ReproduceConfig(data=tmp_path, output=tmp_path / "out", limit=1)
    table = read_table(str(tmp_path / "own.yaml"))
    assert run_table(table, common)[0].missing
    (tmp_path / "w.pth").write_bytes(b"weights")
    assert not run_table(table, common, loaders=Counting().loaders())[0].missing


def test_wrong_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--table", "tabel-6", "--data", str(tmp_path)]) == 2
    assert "did you mean 'table-6'" in capsys.readouterr().err
    assert main(["reproduce", "coco", "--table", "table-6", "--data", str(tmp_path)]) == 2
    row = {"label": "x", "run": {"benchmark": "coco", "masks": "sam,hq"}, "paper": {}}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({"title": "t", "rows": [row]}))
    with pytest.raises(UsageError, match="one of sam, hq and sum"):
        run_table(read_table(str(tmp_path / "t.yaml")), ReproduceConfig(data=tmp_path))


def test_every_benchmark_of_the_command_is_in_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in BENCHMARKS)
