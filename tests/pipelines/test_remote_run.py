from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from batch_toys import LOADERS, load_sam, make_clip, make_mask
from object_storage import Bucket, Fault
from toys import KeepMasks
from vidseg import read_run
from vidseg.config import RunConfig
from vidseg.errors import OutputError, UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.types import Source, VideoInfo
from vidseg_pipelines import remote_folder
from vidseg_pipelines.cli import main
from vidseg_pipelines.run import Loaders, run_video
from vidseg_pipelines.streaming import Advance

pytestmark = pytest.mark.extras
OUTPUT = "s3://bucket/runs/clip"


@pytest.fixture
def config(there: Bucket, tmp_path: Path) -> RunConfig:
    there.put("clip.mp4", make_clip(tmp_path / "clip.mp4", 12).read_bytes())
    there.put("first.png", make_mask(tmp_path / "first.png").read_bytes())
    return RunConfig(
        input="s3://bucket/clip.mp4",
        mask=("0:s3://bucket/first.png",),
        output=Path(OUTPUT),
        save="davis,ytvis",
        refine="box",
        snapshot_every=4,
    )


@pytest.fixture
def local(config: RunConfig, tmp_path: Path) -> dict[str, bytes]:
    """What the same run gives in a folder here."""
    run_video(replace(config, output=tmp_path / "local"), loaders=LOADERS)
    return {name: (tmp_path / "local" / name).read_bytes() for name in ("masks.jsonl", "ytvis.json", "davis/00007.png")}


def stopping_at(frame: int) -> object:
    """What is called when a run begins: Ctrl-C behind a frame."""

    def start(info: VideoInfo, total: int | None) -> Advance:
        def advance(results: Sequence[FrameMasks]) -> None:
            if any(masks.frame_index == frame for masks in results):
                raise KeyboardInterrupt

        return advance

    return start


def status(there: Bucket) -> str:
    return str(json.loads(there.get("runs/clip/run.json"))["status"])


def test_a_run_from_and_into_object_storage(
    there: Bucket, config: RunConfig, local: dict[str, bytes], tmp_path: Path
) -> None:
    there.requests.clear()
    summary = run_video(config, loaders=LOADERS)
    assert str(summary.folder) == OUTPUT
    assert (summary.status, summary.frames) == ("done", 12)
    assert {str(path) for path in summary.outputs} == {
        f"{OUTPUT}/{name}" for name in ("run.json", "masks.jsonl", "davis", "ytvis.json")
    }
    frames = {f"davis/{number:05d}.png" for number in range(12)}
    assert there.names("runs/clip") == {"run.json", "masks.jsonl", "ytvis.json", *frames}
    assert {name: there.get(f"runs/clip/{name}") for name in local} == local
    manifest = json.loads(there.get("runs/clip/run.json"))
    assert manifest["input"]["path"] == "s3://bucket/clip.mp4"
    assert list(manifest["prompts"]) == ["s3://bucket/first.png"]
    assert str(tmp_path) not in there.get("runs/clip/run.json").decode()
    written = [path for method, path in there.requests if method == "PUT"]
    assert written[-1].endswith("/run.json"), "what says that the run is done comes last"
    assert not any((tmp_path / "cache" / "work").iterdir())
    assert [masks.frame_index for masks in read_run(OUTPUT)] == list(range(12))

    there.requests.clear()
    assert run_video(replace(config, resume=True), loaders=Loaders(sam=None)).outputs == summary.outputs  # type: ignore[arg-type]
    assert not [path for method, path in there.requests if method == "PUT" and "run.lock" not in path]
    with pytest.raises(UsageError, match=rf"output folder {OUTPUT} exists: use --resume, --overwrite"):
        run_video(config, loaders=LOADERS)


def test_an_interrupted_run_goes_on_on_another_machine(
    there: Bucket, config: RunConfig, local: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_video(config, loaders=LOADERS, on_start=stopping_at(7))  # type: ignore[arg-type]
    assert status(there) == "interrupted"
    assert "masks.jsonl" not in there.names("runs/clip"), "half of it"
    assert "run.lock" not in there.names("runs/clip")
    assert len(list(read_run(OUTPUT))) >= 8
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "another machine"))
    seen = KeepMasks()
    frames: list[int] = []
    step = seen.step
    monkeypatch.setattr(seen, "step", lambda frame, prompts=(): frames.append(frame.index) or step(frame, prompts))
    run_video(replace(config, resume=True), loaders=Loaders(load_sam, lambda config: seen))
    assert frames == list(range(frames[0], 12))
    assert frames[0] in (4, 8), "from the last state"
    assert {name: there.get(f"runs/clip/{name}") for name in local} == local
    assert not [name for name in there.names("runs/clip") if name.startswith(".resume")]


def test_what_a_killed_run_had_uploaded_is_enough_to_go_on(
    there: Bucket, config: RunConfig, local: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill: at some moment, the storage stays as it is and the machine is gone."""
    config = replace(config, save="ytvis")
    monkeypatch.setattr(remote_folder, "EVERY_S", 0.01)
    kept: list[dict[str, bytes]] = []

    def indices() -> int:
        return there.requests.count(("PUT", "/bucket/runs/clip/.resume/index.json"))

    def start(info: VideoInfo, total: int | None) -> Advance:
        def advance(results: Sequence[FrameMasks]) -> None:
            deadline, seen = time.monotonic() + 60, indices()
            while kept and indices() <= seen and time.monotonic() < deadline:
                time.sleep(0.005)  # uploads go on meanwhile
            kept.append({name: there.get(name) for name in there.names()})

        return advance

    run_video(config, loaders=LOADERS, on_start=start)
    monkeypatch.setattr(remote_folder, "EVERY_S", 1000.0)
    objects = kept[-1]
    assert "runs/clip/.resume/index.json" in objects
    assert "runs/clip/masks.jsonl" not in objects
    there.empty()
    for name, data in objects.items():
        there.put(name, data.replace(b'"pid": ', b'"pid": 9999') if name.endswith("run.lock") else data)
    assert status(there) == "running"
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "another machine"))
    run_video(replace(config, resume=True), loaders=LOADERS)
    assert len(json.loads(there.get("runs/clip/run.json"))["resumed"]) == 1
    for name in ("masks.jsonl", "ytvis.json"):
        assert there.get(f"runs/clip/{name}") == local[name]


def test_results_that_cannot_be_uploaded_stay_here_and_go_on(
    there: Bucket, config: RunConfig, local: dict[str, bytes]
) -> None:
    there.faults.append(Fault("PUT", "ytvis.json", "forbidden", times=10**6))
    with pytest.raises(OutputError, match=r"ytvis\.json: cannot be written: .*not now.*kept in .* with --resume"):
        run_video(config, loaders=LOADERS)
    assert status(there) == "running", "nobody takes it for done"
    there.faults.clear()
    run_video(replace(config, resume=True), loaders=Loaders(sam=None))  # type: ignore[arg-type]  # nothing is computed
    assert status(there) == "done"
    assert {name: there.get(f"runs/clip/{name}") for name in local} == local


def test_storage_that_fails_now_and_then_is_not_noticed(
    there: Bucket, config: RunConfig, local: dict[str, bytes]
) -> None:
    there.faults += [
        Fault("PUT", "davis", "busy", 2),
        Fault("GET", "clip.mp4", "cut"),
        Fault("PUT", "run.json", "busy"),
    ]
    assert run_video(config, loaders=LOADERS).status == "done"
    assert {name: there.get(f"runs/clip/{name}") for name in local} == local


def test_overwrite_removes_what_the_earlier_run_wrote_and_nothing_else(there: Bucket, config: RunConfig) -> None:
    run_video(config, loaders=LOADERS)
    for name in ("notes.txt", "davis/sub/mine.png"):
        there.put(f"runs/clip/{name}", b"mine")
    there.requests.clear()
    run_video(replace(config, overwrite=True, save="coco", frames=":3"), loaders=LOADERS)
    assert there.names("runs/clip") == {"run.json", "masks.jsonl", "coco.json", "notes.txt", "davis/sub/mine.png"}
    changes = [path for method, path in there.requests if method in ("PUT", "DELETE") and "run.lock" not in path]
    assert changes[0].endswith("run.json"), "what is removed must not pass for a finished run"
    assert json.loads(there.get("runs/clip/run.json"))["frames"] == 3


def test_a_run_that_cannot_begin_changes_nothing(there: Bucket, config: RunConfig) -> None:
    run_video(config, loaders=LOADERS)
    before = {name: there.get(name) for name in there.names()}
    there.put("clip.mp4", b"no video")
    for how in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(Exception, match=r"s3://bucket/clip\.mp4: not a video"):
            run_video(replace(config, **how), loaders=LOADERS)
    assert {name: there.get(name) for name in there.names()} == before | {"clip.mp4": b"no video"}


def test_one_run_at_a_time_writes_there(there: Bucket, config: RunConfig) -> None:
    def another(source: Source) -> None:
        with pytest.raises(UsageError, match=f"output folder {OUTPUT} is in use by another run"):
            run_video(replace(config, overwrite=True), loaders=LOADERS)

    run_video(config, loaders=LOADERS, on_open=another)


def test_exports_from_and_into_object_storage(
    there: Bucket, config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_video(replace(config, save="none"), loaders=LOADERS)
    assert main(["export", OUTPUT, "--to", "coco,cutout"]) == 0
    assert "coco.json" in there.names("runs/clip")
    assert "cutout/clip_00003.png" in there.names("runs/clip")
    assert main(["export", OUTPUT, "--to", "mots", "--output", str(tmp_path / "mots")]) == 0
    assert (tmp_path / "mots" / "mots.txt").is_file()
    assert main(["export", str(tmp_path / "mots"), "--to", "mots", "--output", "s3://bucket/none"]) == 3
    assert main(["export", "s3://bucket/none", "--to", "mots"]) == 3
    assert "s3://bucket/none: contains no run" in capsys.readouterr().err


def test_settings_that_cannot_be(there: Bucket, config: RunConfig) -> None:
    with pytest.raises(UsageError, match=r"--output https://server/run: a web server"):
        run_video(replace(config, output=Path("https://server/run")), loaders=LOADERS)
    with pytest.raises(UsageError, match=rf"--output {OUTPUT}: object storage, which --offline forbids"):
        run_video(replace(config, offline=True), loaders=LOADERS)
    with pytest.raises(Exception, match=r"s3://bucket/clip.mp4: a remote input, which --offline forbids"):
        run_video(replace(config, offline=True, output=None), loaders=LOADERS)


def test_weights_may_be_objects(there: Bucket, config: RunConfig, tmp_path: Path) -> None:
    from vidseg.errors import WeightsError
    from vidseg.loading import load_sam as load
    from vidseg.weights import weights_identity

    there.put("w.safetensors", b"no weights")
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        load("s3://bucket/w.safetensors")
    with pytest.raises(WeightsError, match=r"s3://bucket/none\.safetensors: no such object"):
        load("s3://bucket/none.safetensors")
    with pytest.raises(WeightsError, match="--offline forbids"):
        load("s3://bucket/w.safetensors", offline=True)
    assert len(weights_identity("s3://bucket/w.safetensors")["sha256"]) == 64
