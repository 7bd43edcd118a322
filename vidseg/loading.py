"""From a name or a weight file to a network that draws masks: a SAM, an HQ-SAM or a SAM 2."""

from __future__ import annotations

from pathlib import Path

import torch

from vidseg.errors import WeightsError
from vidseg.sam import build
from vidseg.sam.added_weights import join_added
from vidseg.sam.config import named_config
from vidseg.sam.convert import SAM, infer_sam_config, official_sam_state
from vidseg.sam.model import Sam
from vidseg.sam2 import loading as sam2
from vidseg.sam2.adapter import Sam2AsSam
from vidseg.weights.catalog import CATALOG, split_added
from vidseg.weights.fetch import Progress, file_here, locate_model
from vidseg.weights.read import read_weights
from vidseg.weights.unwrap import ExpectedNetwork

ANY_SAM = ExpectedNetwork("a SAM", lambda names: SAM.fits(names) or sam2.SAM2.fits(names))
"""What a file is expected to hold, for the reader of weights: a SAM of either generation."""


def load_sam(
    model: str | Path = "compact",
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
    progress: Progress | None = None,
) -> Sam | Sam2AsSam:
    """A network with weights, ready to use (evaluation mode, no gradients).

    ``model`` is a name of the catalogue ("compact", "sam-hq-vit-l", "sam2.1-hiera-tiny", ...), fetched when it is not
    here yet; an HQ-SAM or SAM 2 file (official .pth or .pt, Hugging Face or vidseg .safetensors), whose sizes are read
    off its tensors; "NAME=FILE" for a file that must fit that name, such as "sam-vit-b=FILE" for a plain SAM; or
    "BASE+FILE" for LoRA or adapters that ``vidseg train hq`` wrote, on the SAM that they were trained on.
    ``dtype`` bfloat16 or float16 stores the weights of linear and convolution layers in it and computes in mixed
    precision (SAM 2: all weights, and everything but positions and masks is computed in it).

    Raises:
        UsageError: unknown name.
        WeightsError: missing, damaged, unsafe or not fitting weights; a plain SAM where an HQ-SAM is wanted.
    """
    base, added = split_added(str(model))
    name, path = locate_sam(base, offline=offline, progress=progress)
    added = None if added is None else file_here(added, offline=offline)
    file = read_weights(path, ANY_SAM)
    if added is not None and sam2.is_sam2(file.tensors):
        raise WeightsError(f"{added}: LoRA and adapters are added to a SAM; {base} is a SAM 2")
    named_sam2 = bool(name) and CATALOG[name].family == "sam2"
    if named_sam2 or (not name and sam2.is_sam2(file.tensors)):
        return Sam2AsSam(sam2.place_sam2(sam2.sam2_from_file(file, name), torch.device(device), dtype))
    if sam2.is_sam2(file.tensors):
        raise WeightsError(f"{path} is a SAM 2, not {name}: leave out '{name}=', or use the file of {name}")
    state = official_sam_state(file)
    told = "config" in file.metadata  # our own files say what they are
    config = named_config(name) if name and not told else infer_sam_config(state, str(file.path), file.metadata)
    if added is not None:
        config, state = join_added(state, base, read_weights(added))
        return build.place_sam(build.from_state(config, state, str(added)), torch.device(device), dtype)
    sam = build.from_state(config, state, str(path), hq=config.hq or not (name or told))
    return build.place_sam(sam, torch.device(device), dtype)


def locate_sam(model: str | Path, *, offline: bool = False, progress: Progress | None = None) -> tuple[str, Path]:
    """What ``model`` of :func:`load_sam` stands for: the name it gives (or ""), and the file, fetched if need be.

    Raises:
        UsageError: unknown name. WeightsError: not here and ``offline``, or the download failed.
    """
    return locate_model(str(model), "model", "sam", "sam2", offline=offline, progress=progress)
