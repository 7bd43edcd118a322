"""The embedded models on a CUDA device give the masks that they give on the CPU, and a resumed tracker goes on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from golden_masks import FRAMES, drawn_by_sam, embedded_tracker, followed, overlap, probabilities, scene
from vidseg.loading import load_sam
from vidseg.sam.prompt_batch import PromptBatch

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """float32 means float32: in convolutions, cuDNN may round the factors to ten bits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def test_logits_in_float32_are_those_of_the_cpu() -> None:
    logits = []
    for device in ("cpu", "cuda"):
        sam = load_sam(device=device, offline=True)
        prompt = PromptBatch(boxes=np.array([[44, 59, 137, 152]], np.float32))
        (answer,) = sam.decode(sam.encode([scene(0)]), [prompt])
        logits.append(answer.logits.cpu())
    assert (logits[0] - logits[1]).abs().max() <= 1e-3 * max(1.0, float(logits[0].abs().max()))


def test_probabilities_of_the_tracker_in_float32_are_those_of_the_cpu() -> None:
    for cpu, cuda in zip(probabilities(embedded_tracker()), probabilities(embedded_tracker("cuda")), strict=True):
        assert (cpu - cuda).abs().max() <= 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masks_in_half_precision_are_nearly_those_of_the_cpu(dtype: torch.dtype) -> None:
    exact = {**drawn_by_sam(), **followed(embedded_tracker())}
    half = {**drawn_by_sam("cuda", dtype), **followed(embedded_tracker("cuda", dtype))}
    for name, mask in exact.items():
        assert overlap(mask, half[name]) >= 0.99, name


def test_a_tracker_goes_on_from_its_state() -> None:
    whole = followed(embedded_tracker("cuda"))
    first = embedded_tracker("cuda")
    followed(first, range(3))
    state = {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in first.state_dict().items()}
    second = embedded_tracker("cuda")
    second.load_state_dict(state)
    for name, labels in followed(second, range(3, FRAMES)).items():
        assert overlap(labels, whole[name]) >= 0.99, name
