"""A server with a tiny network and a tracker whose objects move; ``python serve_toys.py ROOT STATE`` serves it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toys import KeepMasks, tiny_sam
from vidseg.types import Frame, Prompt
from vidseg_pipelines.build import Models
from vidseg_pipelines.refiner import Refiner
from vidseg_pipelines.serve.app import build_app
from vidseg_pipelines.serve.hub import Hub, Limits
from vidseg_pipelines.web.serving import address, listen, serve_until_asked

TOKEN = "the-secret-of-the-tests"


class Moves(KeepMasks):
    """Its objects move by a pixel per frame, and it can let go of them."""

    can_remove = True

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> Any:
        self.masks = {i: np.roll(mask, 1, axis=1) for i, mask in self.masks.items()}
        return super().step(frame, prompts)

    def remove(self, ids: Sequence[int]) -> None:
        for i in ids:
            self.masks.pop(i, None)


def toy_models() -> Models:
    sam = tiny_sam()
    return Models(Moves(), sam, Refiner(sam))


def toy_hub(root: Path, state: Path, **limits: Any) -> Hub:
    return Hub(root, state, toy_models, Limits(**limits))


if __name__ == "__main__":
    listening = listen("127.0.0.1", 0)
    app = build_app(toy_hub(Path(sys.argv[1]), Path(sys.argv[2])), TOKEN)
    serve_until_asked(app, listening, lambda: print(address("127.0.0.1", listening), flush=True))
