"""From a configuration or a weight file to a ready :class:`Sam`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from vidseg.errors import UsageError, WeightsError, did_you_mean
from vidseg.outputs.files import atomic_file, make_folder
from vidseg.sam.config import SamConfig, named_config
from vidseg.sam.convert import SAM, check_state, infer_config, official_state
from vidseg.sam.image_encoder import ImageEncoderViT
from vidseg.sam.model import Sam, SegmentAnything
from vidseg.sam.tiny_vit import TinyViT
from vidseg.sam2.adapter import Sam2AsSam
from vidseg.sam2.loading import SAM2, is_sam2, place, sam2_from_file
from vidseg.weights import split_model
from vidseg.weights.catalog import CATALOG
from vidseg.weights.fetch import Progress, locate
from vidseg.weights.read import WeightFile, read_weights
from vidseg.weights.unwrap import Network

ANY_SAM = Network("a SAM", lambda names: SAM.fits(names) or SAM2.fits(names))
"""What a file is expected to hold, for the reader of weights: a SAM of either generation."""


def build_sam(config: SamConfig) -> Sam:
    """A network with PyTorch's initial weights. Under ``torch.device("meta")`` it costs no memory."""
    return Sam(config, _image_encoder(config))


def load_sam(
    model: str | Path = "compact",
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
    progress: Progress | None = None,
) -> SegmentAnything:
    """A network with weights, ready to use (evaluation mode, no gradients).

    ``model`` is a name of the catalogue ("compact", "sam-hq-vit-l", "sam2.1-hiera-tiny", ...), fetched when it is not
    here yet; an HQ-SAM or SAM 2 file (official .pth or .pt, Hugging Face or vidseg .safetensors), whose sizes are read
    off its tensors; or "NAME=FILE" for a file that must fit that name, such as "sam-vit-b=FILE" for a plain SAM.
    ``dtype`` bfloat16 or float16 stores the weights of linear and convolution layers in it and computes in mixed
    precision (SAM 2: all weights, and everything but positions and masks is computed in it).

    Raises:
        UsageError: unknown name.
        WeightsError: missing, damaged, unsafe or not fitting weights; a plain SAM where an HQ-SAM is wanted.
    """
    name, path = locate_sam(model, offline=offline, progress=progress)
    file = read_weights(path, ANY_SAM)
    named_sam2 = bool(name) and CATALOG[name].family == "sam2"
    if named_sam2 or (not name and is_sam2(file.tensors)):
        return Sam2AsSam(place(sam2_from_file(file, name), torch.device(device), dtype))
    if is_sam2(file.tensors):
        raise WeightsError(f"{path} is a SAM 2, not {name}: leave out '{name}=', or use the file of {name}")
    state = official_state(file)
    config = named_config(name) if name and "config" not in file.metadata else infer_config(state, *_origin(file))
    sam = from_state(config, state, str(path), hq=config.hq or not name)
    return _place(sam, torch.device(device), dtype)


def locate_sam(model: str | Path, *, offline: bool = False, progress: Progress | None = None) -> tuple[str, Path]:
    """What ``model`` of :func:`load_sam` stands for: the name it gives (or ""), and the file, fetched if need be.

    Raises:
        UsageError: unknown name. WeightsError: not here and ``offline``, or the download failed.
    """
    name, path = split_model(str(model))
    if path is None:
        names = [n for n, entry in CATALOG.items() if entry.family in ("sam", "sam2")]
        if name not in names:
            raise UsageError(f"unknown model '{name}'{did_you_mean(name, names)}: a file, or {', '.join(names)}")
        path = locate(name, offline=offline, progress=progress)
    return name, path


def from_state(config: SamConfig, state: dict[str, Tensor], where: str, *, hq: bool | None = None) -> Sam:
    """A network of ``config`` that holds exactly the tensors of ``state`` (official names, float32).

    ``hq`` demands that the state is (or is not) an HQ-SAM; by default what the configuration says.
    """
    with torch.device("meta"):
        sam = build_sam(config)
    check_state(state, sam.state_dict(), where, hq=config.hq if hq is None else hq)
    sam.load_state_dict(state, strict=True, assign=True)
    return sam.eval().requires_grad_(False)


def save_sam(sam: Sam, path: Path, *, half: bool = False) -> None:
    """Write the weights; the file appears whole or not at all.

    ``.safetensors`` carries the configuration in its metadata, so that the file loads by its path; ``half`` stores it
    in half precision. ``.pth`` is float32 under the official names, which the official code reads too.
    """
    make_folder(path.parent)
    state = {k: v.detach().cpu().contiguous() for k, v in sam.state_dict().items()}
    with atomic_file(path) as file:
        if path.suffix == ".pth":
            torch.save(state, file)
        else:
            state = {k: v.half() if half and v.is_floating_point() else v for k, v in state.items()}
            file.write(save(state, metadata={"config": sam.config.to_json(), "format": "pt"}))


def _origin(file: WeightFile) -> tuple[str, dict[str, str]]:
    return str(file.path), file.metadata


def _place(sam: Sam, device: torch.device, dtype: torch.dtype) -> Sam:
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise UsageError(f"dtype {dtype}: allowed are float32, bfloat16 and float16")
    if dtype != torch.float32:
        for module in sam.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                module.to(dtype)
    return sam.to(device)


def _image_encoder(config: SamConfig) -> nn.Module:
    if config.encoder == "vit":
        return ImageEncoderViT(config)
    if config.encoder == "tiny_vit":
        return TinyViT(config)
    from vidseg.sam.compact_encoder import CompactEncoder

    return CompactEncoder(out_channels=config.prompt_dim)
