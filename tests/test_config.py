from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vidseg.config import RunConfig, from_mapping, load_yaml
from vidseg.errors import UsageError
from vidseg.options import key_values
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_trackers.xmem.options import XMemOptions


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
        ("max_objects: many", "max_objects: expected an int, got 'many'"),
        ("max_objects: true", "expected an int"),
        ("max_objects: 0", "--max-objects 0: must be at least 1"),
        ("refine: best", "'best' is not allowed: use one of auto, box, none"),
        ("save: davis,overlai", r"overlai \(did you mean 'overlay'\?\)"),
        ("frames: 5", "expected a str"),
        ("frames: '9:3'", "0 <= A < B"),
        ("frames: '12'", "0 <= A < B"),
        ("[1, 2]", "expected a mapping of options"),
        ("a: [", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("frames: \0", "not valid YAML"),
        ("read_timeout: 0", "--read-timeout 0: expected more than 0 and less than 1000000 seconds"),
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
    with pytest.raises(UsageError, match=r"--tracker-option mem_every=\[: expected KEY=VALUE"):
        RunConfig(tracker_option=("mem_every=[",)).all_tracker_options()


def test_digest_tells_results_apart_not_places() -> None:
    base = RunConfig(input="a.mp4")
    assert base.digest() == RunConfig(input="a.mp4", output=Path("x"), resume=True, device="cpu").digest()
    assert base.digest() != RunConfig(input="a.mp4", model="sam-hq-vit-l").digest()


def test_contradictions_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot be combined"):
        RunConfig(resume=True, overwrite=True).check()
    for tracker in ("xmem", "mask2former"):
        with pytest.raises(UsageError, match=f"--boxes needs --tracker boxes; --tracker {tracker} takes none"):
            RunConfig(boxes=Path("d.json"), tracker=tracker).check()
    RunConfig(boxes=Path("d.json"), tracker="boxes").check()
    with pytest.raises(UsageError, match="input"):
        from_mapping(RunConfig, {"input": 3}, where="here")


@dataclass(frozen=True)
class Values:
    rate: float = 0.0
    steps: int = 0
    text: str = ""
    switch: bool = False
    shares: dict[str, float] = field(default_factory=dict)
    size: int | None = None


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        *(("1e-3", "rate", 1e-3), ("5E2", "rate", 500.0), ("1", "rate", 1.0), (".5", "rate", 0.5)),
        *(("-.Inf", "rate", -math.inf), ("2024-01-02", "text", "2024-01-02")),
        *(("1e4", "steps", 10000), ("1_000", "steps", 1000), ("010", "steps", 10), ("0x10", "steps", 16)),
        *(("1:30", "text", "1:30"), ("no", "text", "no"), ("1_000", "text", "1_000")),
        *(("no", "switch", False), ("On", "switch", True), ("TRUE", "switch", True), ("off", "switch", False)),
        *(("{a: 1e-2, no: 1}", "shares", {"a": 0.01, "no": 1.0}), ("1_000", "size", 1000), ("~", "size", None)),
    ],
)  # fmt: skip
def test_plain_values_mean_what_the_option_takes(tmp_path: Path, text: str, name: str, value: object) -> None:
    (tmp_path / "a.yaml").write_text(f"{name}: {text}\n")
    given = getattr(load_yaml(Values, tmp_path / "a.yaml"), name)
    assert given == value and type(given) is type(value)
    assert getattr(from_mapping(Values, key_values("--set", [f"{name}={text}"]), where="flag"), name) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: fast", "rate: expected a float, got 'fast'"),
        ("steps: 1.5", "steps: expected an int, got 1.5"),
        ("steps: '5'", "steps: expected an int, got '5'"),
        ("size: many", "size: expected an int, got 'many'"),
        ("text: 5", "text: expected a str, got 5; put it in quotes"),
        ("switch: 1", "switch: expected a bool, got 1"),
        ("shares: {a: much}", "shares: a: expected a float"),
        ("rate: 1\nsteps: 2\nrate: 3", "'rate' appears twice"),
    ],
)
def test_other_values_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_yaml(Values, tmp_path / "a.yaml")


def test_options_of_a_tracker_are_read_the_same_way() -> None:
    options = key_values("--tracker-option", ["scene_cut=1e-2", "antialias=no", "max_long_term_elements=20_000"])
    made = XMemOptions.from_mapping(options)
    assert (made.scene_cut, made.antialias, made.max_long_term_elements) == (0.01, False, 20000)


def test_the_hash_covers_every_setting_but_those_that_are_marked() -> None:
    covered, other = [], []
    for setting in dataclasses.fields(RunConfig):
        changed = RunConfig(**{setting.name: f"not {getattr(RunConfig(), setting.name)}"})
        (covered if changed.digest() != RunConfig().digest() else other).append(setting.name)
    assert set(covered) == RunConfig().content().keys()
    assert other == [
        *(
            "output",
            "classes",
            "overlay_style",
            "max_pixels",
            "device",
            "snapshot_every",
            "keep_states",
            "resume",
            "continue_",
            "overwrite",
            "read_timeout",
            "reconnect",
            "video_id",
        ),
        *("offline", "json_log", "config"),
    ]


def test_what_a_benchmark_computes_again_for_is_marked_on_its_settings() -> None:
    assert ReproduceConfig(device="cpu", limit=3).content() == ReproduceConfig(offline=True, workers=2).content()
    assert ReproduceConfig(seed=1).content() != ReproduceConfig().content()
    options = ReproduceConfig(tracker="xmem", tracker_option=("mem_every=3",)).content()["tracker_options"]
    assert options == {"mem_every": 3}
