"""From a configuration or tensors to a ready :class:`Sam`, and from it to a file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.backbones.tiny_vit import TinyViT
from vidseg.errors import UsageError
from vidseg.sam.config import SamConfig
from vidseg.sam.convert import check_sam_state
from vidseg.sam.image_encoder import CompactEncoder, ImageEncoderViT
from vidseg.sam.model import Sam
from vidseg.weights.fit import NoInitialWeights


def build_sam(config: SamConfig) -> Sam:
    """A network with PyTorch's initial weights. Under ``torch.device("meta")`` it costs no memory."""
    return Sam(config, _image_encoder(config))


def from_state(config: SamConfig, state: dict[str, Tensor], where: str, *, hq: bool | None = None) -> Sam:
    """A network of ``config`` that holds exactly the tensors of ``state`` (official names, float32).

    ``hq`` demands that the state is (or is not) an HQ-SAM; by default what the configuration says.
    """
    with torch.device("meta"), NoInitialWeights():
        sam = build_sam(config)
    check_sam_state(state, sam.state_dict(), where, hq=config.hq if hq is None else hq)
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


def place_sam(sam: Sam, device: torch.device, dtype: torch.dtype) -> Sam:
    """The same network on a device; linear and convolution layers in ``dtype``.

    Raises:
        UsageError: another dtype than float32, bfloat16 and float16.
    """
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
    if config.tiny_vit is not None:
        return TinyViT(config.tiny_vit, config.prompt_dim)
    return CompactEncoder(out_channels=config.prompt_dim)
