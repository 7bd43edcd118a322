"""The official numbers: keys of the checkpoint, features, three videos with consolidation, a late object, eviction."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import paths
from vidseg_trackers.mask_tracking.preprocess import InnerGeometry
from vidseg_trackers.xmem import official_memory
from vidseg_trackers.xmem.inference_core import InferenceCore
from vidseg_trackers.xmem.memory_reading import top_weights
from vidseg_trackers.xmem.network import XMem
from vidseg_trackers.xmem.options import XMemOptions
from xmem_rule import normalised, rectangles, rule_frames, rule_network

FIXTURES = paths.FIXTURES / "xmem"


class Video:
    """One of the official runs, repeated."""

    def __init__(self, name: str, memory: str) -> None:
        self.expected = np.load(FIXTURES / f"xmem_{name}.npz")
        self.meta = json.loads(str(self.expected["meta"]))
        self.size = (self.meta["h"], self.meta["w"])
        self.count = self.meta["T"]
        names = ["top_k", "mem_every", "deep_update_every", "num_prototypes", "max_mid_term_frames"]
        names += ["min_mid_term_frames", "max_long_term_elements"]
        options = XMemOptions.from_mapping({"memory": memory, **{k: self.meta["cfg"][k] for k in names}})
        self.online = InferenceCore(rule_network(), options)
        self.geometry = InnerGeometry.of(self.size, -1)
        self.frames = rule_frames(self.count, *self.size)
        self.differ: dict[int, float] = {}
        """Share of pixels with another label, by frame."""
        self.widest_tie = 0.0
        """Largest difference of the two best official probabilities of a pixel with another label."""

    def errors(self, start: int, stop: int) -> dict[int, float]:
        """Run frames start..stop; largest difference of the probabilities on every frame with official numbers."""
        found: dict[int, float] = {}
        pad = self.geometry.pad
        for t in range(start, stop):
            given = rectangles(*self.size, self.meta["masks"].get(str(t), {}))
            masks = {i: pad(torch.from_numpy(m).float()) for i, m in given.items()}
            with torch.inference_mode():
                out = self.geometry.unpad(self.online.step(pad(normalised(self.frames[t])), masks)).numpy()
            if f"prob_{t}" in self.expected:
                official = self.expected[f"prob_{t}"]
                found[t] = float(np.abs(out - official).max())
                other = np.array([0, *self.online.ids])[out.argmax(0)] != self.expected[f"arg_{t}"]
                self.differ[t] = float(other.mean())
                second, best = np.sort(official[:, other], 0)[-2:]
                self.widest_tie = max(self.widest_tie, float((best - second).max(initial=0)))
        assert found
        return found


def test_parameters_have_the_official_names_and_shapes() -> None:
    with torch.device("meta"):
        state = XMem().state_dict()
    ours = sorted(f"{key} {tuple(value.shape)}" for key, value in state.items())
    assert ours == (FIXTURES / "keys.txt").read_text().splitlines()


def test_features_are_the_official_ones() -> None:
    expected = np.load(FIXTURES / "xmem_one_group.npz")
    geometry = InnerGeometry.of((78, 92), -1)
    frames = rule_frames(2, 78, 92)
    with torch.inference_mode():
        got = rule_network().encode_key(torch.cat([geometry.pad(normalised(f)) for f in frames]))
    names = {"key": got.key, "shrink": got.shrinkage, "sel": got.selection}
    names |= {"f16": got.f16.mean(1), "f8": got.f8.mean(1), "f4": got.f4.mean(1)}
    for name, value in names.items():
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-4, atol=1e-4 * np.abs(expected[name]).max())


@pytest.mark.parametrize(
    ("name", "memory", "limit"),
    [("one_group", "official", 1e-4), ("evict", "official", 1e-4), ("evict", "correct", 1.1e-4)],
)
def test_videos_give_the_official_probabilities(name: str, memory: str, limit: float) -> None:
    """Labels may differ where two objects tie: of (evict, correct) at three pixels of frame 29, whose two best official
    probabilities are less than 4e-6 apart, while probabilities agree to 5e-6. Three of 4 x 7176 pixels are 1.05e-4.
    """
    video = Video(name, memory)
    worst = max(video.errors(0, video.count).values())
    assert worst < 1e-4  # seen: 8e-6
    assert video.widest_tie < 2e-5
    assert np.mean(list(video.differ.values())) < limit
    assert video.online.memory.sizes == (video.meta["work"], video.meta["long"])


def test_a_late_object_gives_the_official_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tie decides frame 39: on frame 38 two similarities around the 30th place differ by 1e-5, which is less than
    the convolutions of two machines agree on. The official numbers are those of one of the two.
    """
    video = Video("two_groups", "official")
    errors = video.errors(0, 38)
    assert max(errors.values()) < 1e-4
    state = video.online.state_dict()
    error = video.errors(38, 40)[39]
    if error >= 1e-4:
        gaps: list[float] = []

        def other_side_of_the_tie(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
            if not gaps:  # the first read of frame 38
                best, index = scores[7].topk(k + 1)
                gaps.append(float(best[k - 1] - best[k]))
                scores = scores.clone()
                scores[7, index[k - 1 :]] = best[k - 1 :].flip(0)
            return top_weights(scores, k)

        monkeypatch.setattr(official_memory, "top_weights", other_side_of_the_tie)
        video.online.load_state_dict(state, torch.device("cpu"))
        error = video.errors(38, 40)[39]
        assert gaps[0] < 1e-4
    assert error < 1e-4
    assert video.widest_tie < 2e-4
    assert np.mean(list(video.differ.values())) < 1e-4
    assert video.online.memory.sizes == (video.meta["work"] + 30, video.meta["long"])  # ours remembers frame 39 too
