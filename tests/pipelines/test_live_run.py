"""``vidseg run`` on live sources: the journal knows what was lost, nothing secret is written, Ctrl-C ends in order."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from media import barcode_frame
from streams import SECRETS, Loopback, arrivals, http, transport_stream
from toys import KeepMasks, tiny_sam
from vidseg import segment_frames
from vidseg.config import RunConfig
from vidseg.errors import InputError, UsageError, VidsegError
from vidseg.outputs import read_journal
from vidseg.types import Frame, Gap
from vidseg.video import Backoff, open_source
from vidseg_pipelines import build
from vidseg_pipelines import run as run_module
from vidseg_pipelines.commands.export import ExportCommand
from vidseg_pipelines.commands.run import RunCommand
from vidseg_pipelines.run import run_video

COUNT = 40


@pytest.fixture(autouse=True)
def toy_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: tiny_sam())
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: KeepMasks())
    monkeypatch.setattr(run_module, "Backoff", lambda attempts: Backoff(attempts, 0.01, 0.02))


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    labels = np.zeros((64, 120), np.uint8)
    labels[5:30, 6:40] = 1
    image = Image.fromarray(labels, "P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(tmp_path / "first.png")
    return {
        "output": tmp_path / "out",
        "mask": (str(tmp_path / "first.png"),),
        "save": "davis,ytvis,overlay,report",
        "refine": "none",
        "read_timeout": 2.0,
        "reconnect": 1,
        "drop": "none",
    }


def check_no_secrets(folder: Path, *texts: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in SECRETS), path
    assert not any(secret in text for secret in SECRETS for text in texts)


def test_a_stream_that_stalls_closes_and_changes_size(tmp_path, settings, capsys):
    bodies = [transport_stream(tmp_path, range(k, k + COUNT), *size) for k, size in ((0, ()), (100, (240, 128)))]
    with Loopback(http(bodies[0], stall=True), http(bodies[1])) as server:
        code = RunCommand(input=server.url, **settings).run()
    folder = tmp_path / "out"
    results = list(read_journal(folder / "masks.jsonl"))
    assert [m.frame_index for m in results] == list(range(len(results)))
    assert all(a.pts < b.pts for a, b in pairwise(results))
    assert {(r.height, r.width) for m in results for r in m.rles} == {(64, 120)}
    (gap,) = [m.gap for m in results if m.gap]
    assert gap.reconnects == 1 and gap.source_size == (240, 128) and gap.seconds > 1.8
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["gap"]["seconds"] == gap.seconds
    assert manifest["status"] == "partial" and "given up after 1 attempts" in manifest["warnings"][0]
    assert "Lost: " in (folder / "report.html").read_text()
    assert len(list((folder / "davis").iterdir())) == len(results) == len(list(open_source(folder / "overlay.mp4")))
    assert len(json.loads((folder / "ytvis.json").read_text())[0]["segmentations"]) == len(results)
    assert code == 5
    said = capsys.readouterr()
    assert "s without connection" in said.err
    assert "connecting again, up to 1 times" in said.err and ": connected again after" in said.err
    check_no_secrets(folder, said.out, said.err)
    with pytest.raises(InputError, match="give a recording of it"):
        ExportCommand(folder, "overlay").run()
    assert ExportCommand(folder, "coco,mots").run() == 0
    assert ExportCommand(folder, "labelme").run() == 5  # its pictures are gone


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_live_run_in_order(tmp_path, settings, capsys, number):
    settings["read_timeout"] = 60.0
    journal = tmp_path / "out" / "masks.jsonl"
    before = signal.getsignal(number)

    def interrupt() -> None:
        while not journal.exists() or journal.read_bytes().count(b"\n") < COUNT - 4:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    with Loopback(http(transport_stream(tmp_path, range(COUNT)), stall=True)) as server:
        threading.Thread(target=interrupt, daemon=True).start()
        assert RunCommand(input=server.url, **settings).run() == 0
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["status"] == "done" and manifest["frames"] >= COUNT - 4
    assert (tmp_path / "out" / "ytvis.json").exists() and (tmp_path / "out" / "report.html").exists()
    assert "stopping" in capsys.readouterr().err
    assert signal.getsignal(number) == before


def test_the_second_ctrl_c_interrupts(tmp_path, settings, monkeypatch):
    step = KeepMasks.step

    def interrupted(self: KeepMasks, frame: Frame, prompts: tuple[object, ...] = ()) -> object:
        if frame.index == 6:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, frame, prompts)  # type: ignore[arg-type]

    monkeypatch.setattr(KeepMasks, "step", interrupted)
    body = transport_stream(tmp_path, range(COUNT))
    with Loopback(http(body, stall=True)) as server, pytest.raises(KeyboardInterrupt):
        RunCommand(input=server.url, **settings).run()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "interrupted"
    assert len(list(read_journal(tmp_path / "out" / "masks.jsonl"))) == 4


def test_dropped_frames_are_recorded(tmp_path, settings, monkeypatch):
    settings |= {"drop": "oldest", "reconnect": 0, "batch": 1}
    step, arrived = KeepMasks.step, arrivals(monkeypatch)

    def slow(self: KeepMasks, frame: Frame, prompts: tuple[object, ...] = ()) -> object:
        assert arrived.wait(60)
        return step(self, frame, prompts)  # type: ignore[arg-type]

    monkeypatch.setattr(KeepMasks, "step", slow)
    with Loopback(http(transport_stream(tmp_path, range(COUNT)))) as server:
        summary = run_video(RunConfig(input=server.url, **settings))  # type: ignore[arg-type]
    assert summary.gap.dropped == COUNT - summary.frames > 0
    results = list(read_journal(tmp_path / "out" / "masks.jsonl"))
    assert [m.frame_index for m in results] == list(range(summary.frames))
    assert sum(m.gap.dropped for m in results if m.gap) == summary.gap.dropped


def test_a_live_run_cannot_be_resumed(tmp_path, settings):
    body = transport_stream(tmp_path, range(COUNT))
    with Loopback(http(body), lambda *a: None, http(body)) as server:
        run_video(RunConfig(input=server.url, **settings))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="live input cannot be read again"):
            run_video(RunConfig(input=server.url, resume=True, **settings))  # type: ignore[arg-type]


def test_a_tracker_that_waits_for_the_end_is_refused(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(KeepMasks, "lookahead", sys.maxsize)
    with (
        Loopback(http(transport_stream(tmp_path, range(COUNT)))) as server,
        pytest.raises(UsageError, match="holds every frame back until the end, and a live source has none"),
    ):
        run_video(RunConfig(input=server.url, **settings))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("extra", [{"offline": True}, {"input": "rtsp://alice:hunter2@127.0.0.1:1/s3cret?s3cret"}])
def test_errors_hold_no_secrets(tmp_path, settings, extra, capsys):
    with Loopback() as server, pytest.raises(VidsegError) as caught:
        RunCommand(**{"input": server.url, **settings, **extra}).run()
    assert server.connections == 0
    texts = str(caught.value), capsys.readouterr().err
    assert "hunter2" not in repr(texts)
    assert not (tmp_path / "out").exists()


def test_standard_input_as_a_run(tmp_path, settings, monkeypatch):
    settings["reconnect"] = 10  # has no meaning here
    path = tmp_path / "in.ts"
    path.write_bytes(transport_stream(tmp_path, range(COUNT)) + transport_stream(tmp_path, range(COUNT), 240, 128))
    stdin = os.dup(0)
    try:
        with path.open("rb") as file:
            os.dup2(file.fileno(), 0)
            monkeypatch.setattr(sys, "stdin", file)
            summary = run_video(RunConfig(input="-", **settings))  # type: ignore[arg-type]
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
    assert summary.frames == 2 * COUNT
    assert summary.gap == Gap(source_size=(240, 128))
    assert not any("attempts" in warning for warning in summary.warnings)
    times = [m.time_s for m in read_journal(tmp_path / "out" / "masks.jsonl")]
    assert times == pytest.approx([n / 5 for n in range(2 * COUNT)], abs=1e-3)  # the second part begins at its own zero


def test_frames_of_an_iterator_keep_one_size_and_order():
    sam = tiny_sam()

    def masks(frames: list[object]) -> list[int]:
        settings = {"tracker": KeepMasks(), "model": sam, "refine": "none", "zoom": "never", "max_objects": 1}
        found = segment_frames(frames, **settings)  # type: ignore[arg-type]
        return [m.frame_index for m in found]

    small, large = barcode_frame(0), barcode_frame(0, 240, 128)
    assert masks([small, small]) == [0, 1]
    with pytest.raises(UsageError, match="frame 1 is 240x128, the first was 120x64"):
        masks([small, large])
    with pytest.raises(UsageError, match="frame 3 comes after frame 3"):
        masks([Frame(3, 0, 0.0, small), Frame(3, 1, 0.1, small)])
