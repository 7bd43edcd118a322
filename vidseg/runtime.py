"""Devices and precision, resolved once per run."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from vidseg.errors import UsageError

_DEVICES = re.compile(r"cpu|mps|cuda(:\d{1,3})?")
_OF_THE_DEVICE = re.compile(r"\b(CUDA|HIP|cuDNN|MIOpen)( driver)? error|\bCU(BLAS|DNN|SOLVER|FFT)_STATUS_")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA when there is one, else Apple's MPS, else the CPU.

    Raises:
        UsageError: the device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not _DEVICES.fullmatch(name):  # what PyTorch has besides (meta, xpu, ...) runs none of the networks
        raise UsageError(f"--device {name}: allowed are auto, cpu, cuda, cuda:N and mps")
    device = torch.device(name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: not available on this machine; use --device cpu")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 on CUDA devices that compute in it, else float32.

    Older CUDA devices emulate it, slowly, and lack some operations; elsewhere half precision is slower or inexact.

    Raises:
        UsageError: an unknown name.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and _computes_in_bfloat16(device) else torch.float32
    if name not in _DTYPES:
        raise UsageError(f"--dtype {name}: allowed are auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the host on ``device``, without waiting for what the device is doing; do not change it afterwards."""
    if str(device).startswith("cuda") and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # from other memory the driver waits
    return tensor.to(device, non_blocking=True)


def loses_device(error: BaseException) -> bool:
    """Whether ``error`` may leave the device unusable for the rest of the process.

    An illegal access or a failed assertion in a CUDA kernel does: every later call fails with the same error. Running
    out of memory does not.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return False
    named = isinstance(error, RuntimeError) and _OF_THE_DEVICE.search(str(error)) is not None
    return isinstance(error, torch.AcceleratorError) or named


def _computes_in_bfloat16(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
