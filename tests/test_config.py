from __future__ import annotations

from pathlib import Path

import pytest

from vidseg.config import RunConfig, from_mapping, load_yaml
from vidseg.errors import UsageError


def test_yaml_is_the_same_tree(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("tracker: xmem\nmax-objects: 3\nbox: ['1,2,3,4']\ntracker_options: {mem_every: 7}\noutput: out\n")
    config = load_yaml(RunConfig, path, input="clip.mp4")
    assert config == RunConfig(
        input="clip.mp4", max_objects=3, box=("1,2,3,4",), tracker_options={"mem_every": 7}, output=Path("out")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trackr: xmem", r"unknown option 'trackr' \(did you mean 'tracker'\?\)"),
        ("max_objects: many", "max_objects: an int wanted, got 'many'"),
        ("max_objects: true", "an int wanted"),
        ("max_objects: 0", "--max-objects 0: must be at least 1"),
        ("refine: best", "'best' is not allowed: use one of auto, box, none"),
        ("save: davis,overlai", r"overlai \(did you mean 'overlay'\?\)"),
        ("frames: 5", "a str wanted"),
        ("frames: '9:3'", "0 <= A < B"),
        ("frames: '12'", "0 <= A < B"),
        ("[1, 2]", "a mapping of options wanted"),
        ("a: [", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("frames: \0", "not valid YAML"),
        ("read_timeout: 0", "--read-timeout 0: more than 0 and less than 1000000 seconds"),
        ("read_timeout: .nan", "--read-timeout nan"),
    ],
)
def test_wrong_yaml_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_yaml(RunConfig, path).check()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_yaml_of_windows_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "run.yaml").write_text("tracker: boxes\r\nboxes: bär.json\r\n", encoding=encoding)
    assert load_yaml(RunConfig, tmp_path / "run.yaml").boxes == Path("bär.json")


def test_missing_file_and_missing_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the configuration"):
        load_yaml(RunConfig, tmp_path / "none.yaml")


@pytest.mark.parametrize(("text", "range_"), [(":", (0, None)), ("3:", (3, None)), (":8", (0, 8)), ("3:8", (3, 8))])
def test_frame_range(text: str, range_: tuple[int, int | None]) -> None:
    assert RunConfig(frames=text).frame_range == range_


def test_tracker_options_from_flags_win() -> None:
    config = RunConfig(tracker_options={"mem_every": 5, "size": 480}, tracker_option=("mem_every=7", "memory=official"))
    assert config.all_tracker_options() == {"mem_every": 7, "size": 480, "memory": "official"}
    with pytest.raises(UsageError, match="KEY=VALUE"):
        RunConfig(tracker_option=("mem_every",)).all_tracker_options()
    with pytest.raises(UsageError, match=r"--tracker-option mem_every=\[: KEY=VALUE wanted"):
        RunConfig(tracker_option=("mem_every=[",)).all_tracker_options()


def test_digest_tells_results_apart_not_places() -> None:
    base = RunConfig(input="a.mp4")
    assert base.digest() == RunConfig(input="a.mp4", output=Path("x"), resume=True).digest()
    assert base.digest() != RunConfig(input="a.mp4", model="sam-hq-vit-l").digest()


def test_contradictions_are_refused() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        RunConfig(resume=True, overwrite=True).check()
    with pytest.raises(UsageError, match="--tracker boxes"):
        RunConfig(boxes=Path("d.json")).check()
    with pytest.raises(UsageError, match="input"):
        from_mapping(RunConfig, {"input": 3}, where="here")
