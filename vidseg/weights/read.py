"""Weight files as plain tensors, without running anything that is in them."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vidseg.archives import HEAD_BYTES, archive_kind
from vidseg.errors import WeightsError
from vidseg.types import ShapeRepr
from vidseg.weights.unwrap import ExpectedNetwork, some, unwrap

_NEEDED = re.compile(
    r"collections\.OrderedDict|torch\.Size|torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter)"
    r"|torch\.[A-Z]\w*Storage|torch\.storage\.(Typed|Untyped)Storage|torch\.(b?float|u?int|complex|bool)\w*"
)
"""The globals that a pickle of named tensors asks for. PyTorch's own list is longer: it has ``bytearray``, which takes
any amount of memory."""

_OLD_FORMAT_PICKLES = 4
"""Of PyTorch's old format: magic number, version, machine, content."""


@dataclass(frozen=True, slots=True, repr=False)
class WeightFile(ShapeRepr):
    """Tensors of a file by name, and the texts that a safetensors file may carry."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_weights(path: Path, network: ExpectedNetwork | None = None) -> WeightFile:
    """Read .pth/.pt/.ckpt files of PyTorch (with ``weights_only``) and .safetensors; the content decides, not the name.

    The tensors may be wrapped as training loops do it, see :func:`unwrap`. What loading takes of memory is bounded by
    the size of the file.

    Raises:
        WeightsError: missing, damaged, truncated, unsafe, an archive, or without tensors of one network.
    """
    content, metadata = _read(path)
    tensors = unwrap(content, path, Tensor, network)
    size = path.stat().st_size
    large = [k for k, v in tensors.items() if v.layout != torch.strided or v.numel() * v.element_size() > size]
    if large:
        raise WeightsError(f"{path} refused: {some(large)} would be larger than the file")
    return WeightFile(path, tensors, metadata)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of a training: a dictionary of tensors, numbers, texts and dictionaries of these.

    Raises:
        WeightsError: missing, damaged, truncated, unsafe, or something else.
    """
    content, _ = _read(path, remedy="")
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds {type(content).__name__} instead of a checkpoint")
    return content


def tensor_names(path: Path) -> set[str]:
    """The names of the tensors in a file, which is not loaded; for PyTorch files with all other texts in them.

    Empty for what cannot be read.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        if head[8:9] == b"{":
            with safe_open(path, framework="pt") as file:
                return set(file.keys())
        with zipfile.ZipFile(path) as archive:
            member = next(m for m in archive.infolist() if m.filename.endswith("/data.pkl"))
            if member.file_size > path.stat().st_size:
                return set()
            content = archive.read(member)
        return {argument for _, argument, _ in pickletools.genops(content) if isinstance(argument, str)}
    except (OSError, SafetensorError, zipfile.BadZipFile, StopIteration, ValueError, zlib.error):
        return set()


def no_such_file(path: Path) -> WeightsError:
    """The error for a file that is not there."""
    return WeightsError(f"{path}: no such weight file (names are listed by `vidseg weights list`)")


def _read(path: Path, remedy: str = ": fetch it again") -> tuple[object, dict[str, str]]:
    if not path.is_file():
        raise no_such_file(path)
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if head[:4] == b"PK\x03\x04" or head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return _read_pytorch(path, size, remedy, zipped=head[:2] == b"PK"), {}
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return _read_safetensors(path, size)
    if kind := archive_kind(head):
        raise WeightsError(f"{path} is a {kind} archive: unpack it and name the file of weights in it")
    raise WeightsError(f"{path} ({size:,} bytes) is neither a PyTorch nor a safetensors file, or it is damaged")


def _read_pytorch(path: Path, size: int, remedy: str, *, zipped: bool) -> object:
    try:
        asked = sorted(name for name in _asked_for(path, size, zipped) if not _NEEDED.fullmatch(name))
        if asked:
            raise WeightsError(
                f"{path} refused: it would run code or take memory when loaded ({', '.join(asked)[:200]}); get the"
                " weights from their publisher, or as .safetensors"
            )
        return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except (
        *(pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, KeyError),
        *(IndexError, AttributeError, TypeError),
    ) as error:
        raise WeightsError(f"{path} ({size:,} bytes) is damaged or truncated{remedy}") from error


def _asked_for(path: Path, size: int, zipped: bool) -> set[str]:
    """The functions and classes ("module.name") that loading a PyTorch file would use; nothing is loaded."""
    if not zipped:
        with path.open("rb") as stream:
            return _globals(stream, size)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        pickled = [member for member in members if member.filename.endswith("/data.pkl")]
        if not pickled:
            raise WeightsError(f"{path} is a zip archive without PyTorch weights: unpack it and name the file in it")
        if len(pickled) > 1 or sum(member.file_size for member in members) > size:
            raise WeightsError(f"{path} refused: it would unpack to more than its size, unlike files of PyTorch")
        content = archive.read(pickled[0])
    return _globals(io.BytesIO(content), len(content))


def _globals(stream: IO[bytes], end: int) -> set[str]:
    names: set[str] = set()
    texts: list[str] = []
    for _ in range(_OLD_FORMAT_PICKLES):
        if stream.tell() == end:
            break
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in ("GLOBAL", "INST"):
                names.add(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":  # PyTorch refuses these, whatever the name is
                names.add(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts = [*texts[-1:], argument]
    return names


def _read_safetensors(path: Path, size: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path} ({size:,} bytes) is damaged or truncated: {error}") from error
