"""The image encoder through torch.compile: for which images, whether masks stay the same, what it keeps and needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from media import write_video
from toys import KeepMasks, frames, tiny_sam
from vidseg import compiling
from vidseg.compiling import SHAPES, Compiled, check_compiler
from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg.types import Frame, Prompt, Tracks, VideoInfo
from vidseg_pipelines import build
from vidseg_pipelines.build import ModelChoice
from vidseg_pipelines.cli import main
from vidseg_pipelines.refiner import Refiner
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.streaming import stream

CPU = torch.device("cpu")
Network = Callable[[Tensor], tuple[Tensor, ...]]


class Faked:
    """Stands for torch.compile: the network as it is, and what it was asked for."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, network: nn.Module, **options: Any) -> Network:
        self.options = options

        def call(x: Tensor) -> tuple[Tensor, ...]:
            self.shapes.append(tuple(x.shape))
            return network(x)

        return call


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Faked:
    fake = Faked()
    monkeypatch.setattr(torch, "compile", fake)
    monkeypatch.setattr(compiling, "check_compiler", lambda device: None)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "own"))
    return fake


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def test_whole_frames_are_compiled_one_by_one_and_crops_are_not(faked: Faked) -> None:
    sam, plain = tiny_sam(), tiny_sam()
    sam.compile_encoder()
    images = [picture(96, 128)] * 3
    found = sam.encode(images)
    assert faked.shapes == [(1, 3, 96, 128)] * 3
    assert torch.equal(found[2].embedding, plain.encode(images[:1])[0].embedding)
    sam.encode([picture(50, 64)], 64)
    assert len(faked.shapes) == 3
    assert sam.with_output("sam").compiled is sam.compiled


def test_only_the_first_shapes_are_compiled(faked: Faked) -> None:
    network = Compiled(nn.Identity(), CPU)
    for size in [*range(1, SHAPES + 4), 1]:
        network(torch.zeros(1, size))
    assert [size for _, size in faked.shapes] == [*range(1, SHAPES + 1), 1]
    assert faked.options == {"dynamic": False, "mode": "default"}


class Twice(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_results_of_cuda_graphs_stay_when_the_graph_runs_again(faked: Faked, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append("step"))
    network, room = Compiled(Twice(), torch.device("cuda")), torch.zeros(1, 3)
    (first, _) = network(room)
    room += 1  # as the next replay would
    assert first.sum() == 0 and network(room)[1].sum() == 3
    assert (steps, faked.options["mode"]) == (["step", "step"], "reduce-overhead")


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException

        raise TorchDynamoException("backend='inductor' raised:\nCppCompileError: no\n")


def test_what_cannot_be_compiled_is_said_in_one_line(faked: Faked) -> None:
    told = r"--compile: torch.compile failed \(backend='inductor' raised: CppCompileError: no\); leave --compile out"
    with pytest.raises(UsageError, match=told):
        Compiled(Fails(), CPU)(torch.zeros(1))


def test_what_is_compiled_is_kept_in_the_cache_folder_unless_the_user_names_one(
    faked: Faked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "cache"))
    Compiled(nn.Identity(), CPU)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "own")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    Compiled(nn.Identity(), CPU)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "compiled")


def test_without_a_compiler_it_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: pytest.fail("loaded"))
    video, out = write_video(tmp_path / "clip.mp4", [picture(48, 64)] * 2), tmp_path / "out"
    assert main(["run", str(video), "--box", "5,5,30,25", "--output", str(out), "--device", "cpu", "--compile"]) == 2
    told = capsys.readouterr().err
    assert "--compile: no compiler (no-such-compiler) here: install one (Debian" in told and "CXX" in told
    assert "or leave --compile out" in told and not out.exists()
    with pytest.raises(UsageError, match=r"no compiler \(no-such-compiler\)"):
        ModelChoice(device="cpu", compile=True).check()


def test_what_else_it_needs_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="on the CPU and on CUDA only, not on mps"):
        check_compiler(torch.device("mps"))
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setenv("CC", sys.executable)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(UsageError, match=r"no Python\.h here: install the headers of Python"):
        check_compiler(CPU)
    (tmp_path / "Python.h").touch()
    check_compiler(CPU)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="no Triton here: pip install triton"):
        check_compiler(torch.device("cuda"))


def test_the_setting_is_checked_and_decides_the_result() -> None:
    assert RunConfig(compile=True).content()["compile"] is True
    assert RunConfig(compile=True).digest() != RunConfig().digest()
    with pytest.raises(UsageError, match="compile 'no': True or False expected"):
        ModelChoice(compile="no")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="compile is for a model that is named"):
        ModelChoice(model=tiny_sam(), compile=True)


class Told(KeepMasks):
    """A tracker that looks ahead, and writes down its steps."""

    looks_ahead = True

    def __init__(self, order: list[str]) -> None:
        super().__init__()
        self.order = order

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        self.order.append("step")
        return super().step(frame, prompts)

    def look(self, frame: Frame) -> object: ...

    def expect(self, index: int, look: Callable[[], object]) -> None: ...


@pytest.mark.threads(2)
def test_it_is_compiled_before_two_threads_are_at_work(faked: Faked, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sam, tracker = tiny_sam(), Told(order)
    sam.compile_encoder()
    network = sam.compiled
    assert network is not None

    def spy(x: Tensor) -> tuple[Tensor, ...]:
        order.append("main" if threading.current_thread() is threading.main_thread() else "drawing")
        return network(x)

    monkeypatch.setattr(sam, "compiled", spy)
    mask = np.zeros((48, 64), np.bool_)
    mask[10:30, 10:30] = True
    segmenter = Segmenter(tracker, sam, Refiner(sam), prompts=[Prompt(0, 1, mask=mask)])
    segmenter.start(VideoInfo(64, 48, Fraction(25)))
    stream(frames(4, 48, 64), segmenter, [], batch=2)
    assert order[:2] == ["main", "step"] and "drawing" in order
    assert segmenter.clock.seconds()["compile"] >= 0


REAL = """
import json, os, sys
import numpy as np
import torch
from vidseg.sam.build import build_sam
from vidseg.options import from_mapping
from vidseg.sam.config import SamConfig
from vidseg.sam.prompt_batch import PromptBatch

torch.set_num_threads(1)
torch.manual_seed(0)
sam = build_sam(from_mapping(SamConfig, json.loads(sys.argv[1]), where="test")).eval().requires_grad_(False)
image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
boxes = PromptBatch(boxes=np.array([[5, 5, 40, 30]], np.float32))
answers = []
for step in range(2):
    before = "torch._dynamo" in sys.modules
    (answer,) = sam.decode(sam.encode([image]), [boxes])
    answers.append(answer.logits)
    if step == 0:
        sam.compile_encoder()
a, b = (logits > logits.median() for logits in answers)
away = float((answers[0] - answers[1]).abs().max() / answers[0].std())
print(json.dumps([float((a & b).sum() / (a | b).sum()), away, before]))
"""
SMALL = {
    **{"encoder": "vit", "image_size": 64, "prompt_dim": 32, "decoder_mlp_dim": 32, "iou_hidden_dim": 32},
    **{"hq": False, "output": "sam"},
    "vit": {"embed_dim": 32, "depth": 1, "num_heads": 2, "global_blocks": [0]},
}


def test_compiled_for_real_the_masks_are_the_same(tmp_path: Path) -> None:
    """In a process of its own: what checks shapes in tests cannot be compiled."""
    try:
        check_compiler(CPU)
    except UsageError as missing:
        pytest.skip(str(missing))
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment |= {"VIDSEG_CACHE": str(tmp_path), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    command = [sys.executable, "-c", REAL, json.dumps(SMALL)]
    told = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert told.returncode == 0, told.stderr
    iou, away, compiler_was_there = json.loads(told.stdout)
    assert iou >= 0.99 and away < 1e-3 and compiler_was_there
    assert list((tmp_path / "compiled").rglob("*.so"))
