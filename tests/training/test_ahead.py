"""Batches that other threads make ahead are the batches that the loop would make itself."""

from __future__ import annotations

import threading
from pathlib import Path

import torch

from training_toys import Line
from vidseg.training.ahead import Ahead
from vidseg.training.loop import Loop
from vidseg.training.schedule import BatchRandomness, LoopConfig


def drawn(draw: BatchRandomness) -> tuple[int, float, int]:
    return draw.batch, float(draw.rng.random()), threading.get_ident()


def test_the_batches_of_any_number_of_workers_are_the_same() -> None:
    loop = LoopConfig(steps=4, lr=0.1, accumulate=2, seed=3)
    draws = [BatchRandomness.of(3, step, 1 + 2 * k, 4) for step in range(1, 4) for k in range(2)]  # resumed at step 1
    alone = [Ahead(drawn, loop, 0, rank=1, world=2)(BatchRandomness.of(3, d.batch // 4, d.batch % 4, 4)) for d in draws]
    ahead = Ahead(drawn, loop, 2, rank=1, world=2)
    made = [ahead(draw) for draw in draws]
    assert [m[:2] for m in made] == [a[:2] for a in alone]
    assert threading.get_ident() not in {m[2] for m in made} and {a[2] for a in alone} == {threading.get_ident()}


def test_a_training_with_workers_gives_the_same_weights(tmp_path: Path) -> None:
    config = LoopConfig(steps=6, lr=0.05)
    weights = []
    for workers in (0, 1):
        torch.manual_seed(0)
        model = Line()
        ahead = Ahead(lambda draw: torch.from_numpy(draw.rng.normal(size=(4, 3))).float(), config, workers)
        Loop(model, lambda draw, a=ahead, m=model: {"loss": m.w(a(draw)).square().mean()}, config, tmp_path).run()
        weights.append(model.w.weight.detach())
    assert torch.equal(*weights)
