"""Weight files as plain tensors, without running anything that is in them."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vidseg.errors import WeightsError
from vidseg.types import ShapeRepr


@dataclass(frozen=True, slots=True, repr=False)
class WeightFile(ShapeRepr):
    """Tensors of a file by name, and the texts that a safetensors file may carry."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_weights(path: Path) -> WeightFile:
    """Read .pth/.pt files of PyTorch (with ``weights_only``) and .safetensors; the content decides, not the name.

    Files that keep the tensors under "model" or "state_dict" are unpacked; a "module." prefix is removed.

    Raises:
        WeightsError: missing, damaged, truncated, unsafe, or without tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file")
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(16)
    metadata: dict[str, str] = {}
    if head[:4] == b"PK\x03\x04" or head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        content = _read_pytorch(path, size)
    elif len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        content, metadata = _read_safetensors(path, size)
    else:
        raise WeightsError(f"{path} ({size:,} bytes) is neither a PyTorch nor a safetensors file, or it is damaged")
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path} holds {type(content).__name__} instead of named tensors")
    wrong = [str(k) for k, v in content.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    if wrong:
        raise WeightsError(f"{path}: {_some(wrong)} not a tensor: this is not a file of weights")
    tensors = {k.removeprefix("module."): v for k, v in content.items()}
    return WeightFile(path, tensors, metadata)


def _read_pytorch(path: Path, size: int) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = _blocked_globals(path, str(error))
        if blocked:
            raise WeightsError(
                f"{path} refused: it would run code when loaded ({', '.join(blocked)}); get the weights from their"
                " publisher, or as .safetensors"
            ) from None
        raise WeightsError(f"{path} ({size:,} bytes) is damaged or truncated") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path} ({size:,} bytes) is damaged or truncated: fetch it again") from error


def _blocked_globals(path: Path, message: str) -> list[str]:
    """Names of the functions and classes that a pickle asks for and that are not allowed."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # only zip files can be listed; for older ones the refusal names the first
        found = re.findall(r"GLOBAL ([\w.]+)", message) + re.findall(r"class ([\w.]+)", message)
    return sorted(set(found))


def _read_safetensors(path: Path, size: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path} ({size:,} bytes) is damaged or truncated: {error}") from error


def _some(names: list[str], limit: int = 3) -> str:
    """The first few of ``names``, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(n) for n in names[:limit]) + more
