"""What only an accelerator can show: the same masks as on the CPU, a run that goes on, flat memory, and speed.

    bash benchmarks/gpu.sh                     # everything, in at most six minutes
    python benchmarks/gpu.py STEP --out DIR    # one step; python benchmarks/gpu.py --list names them

A step writes DIR/STEP.json and exits with 1 when a check fails. `--device cpu --tiny` tries the script itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vidseg.loading import load_sam
from vidseg.sam.build import build_sam
from vidseg.sam.config import named_config
from vidseg.sam.model import Sam
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.types import Frame, Prompt, Tracker, VideoInfo
from vidseg_trackers.mask2former.config import Mask2FormerConfig
from vidseg_trackers.mask2former.network import Mask2Former
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.network import XMem
from vidseg_trackers.xmem.tracker import XMemTracker
from vidseg_trackers.xmem.tracker import build as build_xmem

HALF_IOU, EXACT = 0.99, 1e-3
AWAY = 0.1
"""With random weights, pixels whose logit is nearer to the threshold than this share of the spread do not count."""


class Bench:
    """The device, the sizes, and what the steps share."""

    def __init__(self, device: str, tiny: bool) -> None:
        self.device, self.tiny = torch.device(device), tiny
        self.hw = (120, 160) if tiny else (480, 854)
        self.dtypes = [torch.bfloat16] if tiny else [torch.bfloat16, torch.float16]

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object], rounds: int = 10) -> float:
        """Median time of a call, after three that do not count."""
        for _ in range(3):
            call()
        times = []
        for _ in range(2 if self.tiny else rounds):
            self.wait()
            begun = time.perf_counter()
            call()
            self.wait()
            times.append(time.perf_counter() - begun)
        return float(np.median(times))

    def picture(self, step: int) -> np.ndarray:
        """Three discs that move over texture."""
        height, width = self.hw
        image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8), (0, 0), 5)
        for n, (x, y) in enumerate(self._centres(step)):
            cv2.circle(image, (x, y), height // 8, [(220, 60, 40), (40, 200, 70), (60, 80, 230)][n], -1)
        return image

    def masks(self) -> list[np.ndarray]:
        """The discs of the first picture."""
        y, x = np.mgrid[: self.hw[0], : self.hw[1]]
        return [np.hypot(x - a, y - b) < self.hw[0] // 8 for a, b in self._centres(0)]

    def boxes(self) -> np.ndarray:
        """Around the discs of the first picture."""
        r = self.hw[0] // 8
        return np.array([(x - r, y - r, x + r, y + r) for x, y in self._centres(0)], np.float32)

    def _centres(self, step: int) -> list[tuple[int, int]]:
        height, width = self.hw
        return [(int(width * (n + 1) / 4 + 2 * step), int(height * (0.4 + 0.1 * n))) for n in range(3)]

    def follow(self, tracker: Tracker, steps: range) -> list[torch.Tensor]:
        """Probabilities of the discs on every frame; their masks are given on the first."""
        found = []
        for step in steps:
            prompts = [Prompt(0, n, mask=m) for n, m in enumerate(self.masks(), 1)] if step == 0 else []
            (tracks,) = tracker.step(Frame(step, step, step / 24, self.picture(step)), prompts)
            assert tracks.masks is not None
            found.append(tracks.masks.float().cpu())
        return found

    def started(self, tracker: Tracker) -> Tracker:
        """The tracker at the beginning of the video."""
        tracker.start(VideoInfo(self.hw[1], self.hw[0], Fraction(24)))
        return tracker


def compare(exact: torch.Tensor, other: torch.Tensor, at: float, half: bool, away: float = 0.0) -> dict[str, Any]:
    """IoU of the masks above ``at`` in half precision, largest difference in float32; and whether it is enough."""
    if not half:
        worst = float((exact - other).abs().max() / max(1.0, float(exact.abs().max())))
        return {"difference": worst, "limit": EXACT, "good": worst <= EXACT}
    counts = (exact - at).abs() > away * float(exact.std())
    a, b = (exact > at) & counts, (other > at) & counts
    iou = float((a & b).sum() / max(1, int((a | b).sum())))
    return {"iou": iou, "limit": HALF_IOU, "good": iou >= HALF_IOU}


def check_image_models(bench: Bench) -> dict[str, Any]:
    """Logits of the embedded model, and of official shapes with random weights, against the CPU's."""
    found: dict[str, Any] = {}
    for name in ["compact"] if bench.tiny else ["compact", "sam-hq-vit-tiny", "sam-hq-vit-b", "sam-hq-vit-l"]:
        torch.manual_seed(0)
        sam = load_sam("compact", offline=True) if name == "compact" else build_sam(named_config(name)).eval()
        assert isinstance(sam, Sam)
        exact = _logits(bench, sam)
        random = name != "compact"
        for dtype in [torch.float32, *bench.dtypes]:
            copied = _copy(sam, bench.device, dtype)
            at = float(exact.median()) if random else 0.0
            half = dtype != torch.float32
            found[f"{name} {dtype}"] = compare(exact, _logits(bench, copied), at, half, AWAY if random else 0.0)
    return found


def _logits(bench: Bench, sam: Sam) -> torch.Tensor:
    (answer,) = sam.decode(sam.encode([bench.picture(0)]), [PromptBatch(boxes=bench.boxes())])
    return answer.logits[:, 0].float().cpu()


def _copy(sam: Sam, device: torch.device, dtype: torch.dtype) -> Sam:
    copied = build_sam(sam.config)
    copied.load_state_dict(sam.state_dict())
    return copied.eval().requires_grad_(False).to(device, dtype)


def check_trackers(bench: Bench) -> dict[str, Any]:
    """XMem, embedded and of the official shape with random weights, and Mask2Former, against the CPU's."""
    found: dict[str, Any] = {}
    steps = range(2 if bench.tiny else 6)
    cpu = torch.device("cpu")
    embedded = bench.follow(bench.started(build_xmem({}, device=cpu, dtype=torch.float32, offline=True)), steps)
    for dtype in [torch.float32, *bench.dtypes]:
        tracker = build_xmem({}, device=bench.device, dtype=dtype, offline=True)
        other = bench.follow(bench.started(tracker), steps)
        found[f"compact-xmem {dtype}"] = _worst(embedded, other, dtype != torch.float32)
    if bench.tiny:
        return found
    torch.manual_seed(0)
    networks = {"xmem": XMem(XMemConfig()).eval(), "mask2former": Mask2Former(Mask2FormerConfig()).eval()}
    for name, network in networks.items():
        answers = [_answers(bench, name, network.to(device)) for device in (cpu, bench.device)]
        found[f"{name} torch.float32"] = _worst(*answers, half=False)
    return found


@torch.inference_mode()
def _answers(bench: Bench, name: str, network: torch.nn.Module) -> list[torch.Tensor]:
    if isinstance(network, XMem):
        return bench.follow(bench.started(XMemTracker(network)), range(3))
    assert isinstance(network, Mask2Former)
    images = torch.from_numpy(np.stack([bench.picture(t) for t in range(2)])).permute(0, 3, 1, 2).float()
    images = (images[..., :480, :832] / 58 - 2).to(next(network.parameters()).device)
    return [network.decode(network.encode(images)).classes.float().cpu()]


def _worst(exact: list[torch.Tensor], other: list[torch.Tensor], half: bool) -> dict[str, Any]:
    results = [compare(a, b, 0.5, half) for a, b in zip(exact, other, strict=True)]
    return min(results, key=lambda one: (one["good"], one.get("iou", -one.get("difference", 0.0))))


def check_resume(bench: Bench) -> dict[str, Any]:
    """A tracker whose state went through the host goes on as if nothing had happened."""

    def fresh() -> Tracker:
        return bench.started(build_xmem({}, device=bench.device, dtype=torch.float32, offline=True))

    whole, first, second = bench.follow(fresh(), range(6)), fresh(), fresh()
    bench.follow(first, range(3))
    state = {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in first.state_dict().items()}
    second.load_state_dict(state)
    return {"resumed": _worst(whole[3:], bench.follow(second, range(3, 6)), half=False)}


def check_memory(bench: Bench) -> dict[str, Any]:
    """Twenty runs, one after the other, leave no memory of the device behind."""
    from vidseg_pipelines.api import segment_frames

    sam = load_sam("compact", device=bench.device, offline=True)
    used = []
    for _ in range(3 if bench.tiny else 20):
        tracker = build_xmem({}, device=bench.device, dtype=torch.float32, offline=True)
        pictures = [bench.picture(t) for t in range(2 if bench.tiny else 8)]
        prompts = [Prompt(0, n, mask=m) for n, m in enumerate(bench.masks(), 1)]
        list(segment_frames(pictures, tracker=tracker, model=sam, prompts=prompts))
        bench.wait()
        del tracker
        used.append(torch.cuda.memory_allocated(bench.device) / 2**20 if bench.device.type == "cuda" else 0.0)
    growth = used[-1] - used[1]
    return {"growth_mb": {"runs": len(used), "measured": growth, "limit": 1.0, "good": growth <= 1.0}}


def time_matrix(bench: Bench) -> dict[str, Any]:
    """The rate of a large matrix product: the limit of everything below."""
    size, rates = 256 if bench.tiny else 8192, {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        a = torch.randn(size, size, device=bench.device, dtype=dtype)
        rates[str(dtype)] = 2 * size**3 / bench.seconds(lambda a=a: a @ a) / 1e12  # type: ignore[misc]
    return {"tflops_per_s": rates}


def time_encoders(bench: Bench) -> dict[str, Any]:
    """Image encoders in bfloat16: time, and share of the matrix rate."""
    limit = time_matrix(bench)["tflops_per_s"]["torch.bfloat16"]
    found: dict[str, Any] = {}
    for name in ["compact"] if bench.tiny else ["sam-hq-vit-l", "sam-hq-vit-b", "sam-hq-vit-tiny", "compact"]:
        made = load_sam("compact", offline=True) if name == "compact" else build_sam(named_config(name))
        assert isinstance(made, Sam)
        sam = _copy(made, bench.device, torch.bfloat16)
        pictures = [bench.picture(t) for t in range(1 if bench.tiny else 4)]
        with FlopCounterMode(display=False) as counter:
            sam.encode(pictures)
        took = bench.seconds(lambda sam=sam, pictures=pictures: sam.encode(pictures))  # type: ignore[misc]
        rate = counter.get_total_flops() / took / 1e12
        found[name] = {"ms_per_frame": 1e3 * took / len(pictures), "tflops_per_s": rate, "of_the_limit": rate / limit}
    return found


def check_compiled(bench: Bench) -> dict[str, Any]:
    """The embedded encoder through torch.compile: the same masks; seconds of the first image, and of one after it."""
    made = load_sam(
        "compact",
        device=bench.device,
        dtype=torch.bfloat16 if bench.device.type == "cuda" else torch.float32,
        offline=True,
    )
    assert isinstance(made, Sam)
    picture, exact = bench.picture(0), _logits(bench, made)
    plain = bench.seconds(lambda: made.encode([picture]))
    made.compile_encoder()
    begun = time.perf_counter()
    found = compare(exact, _logits(bench, made), 0.0, half=True)
    first = time.perf_counter() - begun
    took = bench.seconds(lambda: made.encode([picture]))
    return {"compact": {**found, "first_s": first, "ms_per_frame": 1e3 * took, "plain_ms_per_frame": 1e3 * plain}}


def time_runs(bench: Bench) -> dict[str, Any]:
    """Whole runs on a folder of images, from its files to the journal: frames per second with 1, 3 and 10 objects."""
    from vidseg.config import RunConfig
    from vidseg_pipelines.run import run_video

    found: dict[str, Any] = {}
    height, width = (120, 160) if bench.tiny else (1080, 1920)
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames"
        frames.mkdir()
        for t in range(4 if bench.tiny else 90):
            picture = cv2.resize(bench.picture(0), (width, height))
            _ten_discs(picture, t)
            cv2.imwrite(str(frames / f"{t:05}.jpg"), picture)
        for count in (1, 3, 10):
            labels = np.zeros((height, width), np.uint8)
            _ten_discs(labels, 0)
            mask = Path(folder) / f"{count}.png"
            cv2.imwrite(str(mask), np.where(labels <= count, labels, 0))
            config = RunConfig(input=str(frames), output=Path(folder) / f"run{count}", mask=(str(mask),), save="none")
            summary = run_video(replace(config, device=str(bench.device), batch=8))
            manifest = json.loads((summary.folder / "run.json").read_text())
            found[f"{count} objects"] = {"fps": summary.fps, "seconds": manifest["seconds"], "used": manifest["used"]}
    return found


def _ten_discs(image: np.ndarray, step: int) -> None:
    """Two rows of discs, drawn in colours, or as the numbers 1 to 10."""
    height, width = image.shape[:2]
    for n in range(10):
        centre = int(width * (n % 5 + 1) / 6 + step), int(height * (n // 5 + 1) / 3)
        color = (60 + 19 * n, 250 - 21 * n, 40 * (n % 5)) if image.ndim == 3 else (n + 1,)
        cv2.circle(image, centre, height // 10, color, -1)


STEPS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "image-models": check_image_models,
    "trackers": check_trackers,
    "resume": check_resume,
    "memory": check_memory,
    "matrix": time_matrix,
    "encoders": time_encoders,
    "compiled": check_compiled,
    "runs": time_runs,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a step; 1 when a check of it fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", nargs="?", choices=STEPS)
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to try the script")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args(arguments)
    if options.list or options.step is None:
        print("\n".join(STEPS))
        return 0
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    begun = time.perf_counter()
    result = STEPS[options.step](Bench(options.device, options.tiny))
    good = all(one.get("good", True) for one in result.values() if isinstance(one, dict))
    result = {"good": good, "seconds": time.perf_counter() - begun, **result}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.step}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{options.step}: {'good' if good else 'NOT GOOD'} {json.dumps(result)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
