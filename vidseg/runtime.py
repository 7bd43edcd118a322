"""Devices and precision, resolved once per run."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from vidseg.errors import UsageError

_DEVICES = re.compile(r"cpu|mps|cuda(:\d{1,3})?")
_OF_THE_DEVICE = re.compile(r"\b(CUDA|HIP|cuDNN|MIOpen)( driver)? error|\bCU(BLAS|DNN|SOLVER|FFT)_STATUS_")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_INSTRUCTIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
"""Of CPUs, for products of bfloat16 numbers: torch's name, and the usual one."""
_FLOAT16_SINCE = (7, 0)
"""The first compute capability whose matrix units take float16; most cards before compute in it slowly."""
_NO_FLOAT16 = ("GTX 16", "MX450", "MX550")
"""Cards of later capabilities without such units, some of which give NaN in float16."""
_GAIN = 1.5
"""Least ratio of the times of a product in float32 and bfloat16; in float32 some convolutions take fewer products."""
_SECONDS = 0.08
"""Longest time that measuring it takes, but for the last product."""


@dataclass(frozen=True, slots=True)
class Precision:
    """The type that networks compute in, and why; ``run.json`` holds both."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        """As on the command line: float32, bfloat16 or float16."""
        return str(self.dtype).removeprefix("torch.")


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
    """The type of :func:`choose_precision`."""
    return choose_precision(name, device).dtype


def choose_precision(name: str, device: torch.device) -> Precision:
    """``auto`` is bfloat16 on CUDA devices and CPUs that gain from it, float16 on older CUDA devices, else float32.

    Where there are no instructions for a type, it is emulated, slowly; elsewhere half precision was not measured. On a
    CPU with the instructions, products are timed once per process.

    Raises:
        UsageError: an unknown name.
    """
    if name in _DTYPES:
        return Precision(_DTYPES[name], f"--dtype {name}")
    if name != "auto":
        raise UsageError(f"--dtype {name}: allowed are auto, {', '.join(_DTYPES)}")
    if device.type == "cpu":
        return _precision_of_the_cpu()
    if device.type != "cuda":
        return Precision(torch.float32, f"not measured in half precision on {device.type}")
    for half in ("bfloat16", "float16"):
        if computes_in(half, device):
            return Precision(_DTYPES[half], "the device computes in it")
    return Precision(torch.float32, "the device computes in neither bfloat16 nor float16")


def computes_in(name: str, device: torch.device) -> bool:
    """Whether the device has instructions for products of numbers of the type called ``name``."""
    if name == "float32":
        return True
    if device.type == "cpu":
        return name == "bfloat16" and bool(_instructions())
    if device.type != "cuda":
        return False
    if name == "bfloat16":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    card = torch.cuda.get_device_name(device)
    return torch.cuda.get_device_capability(device) >= _FLOAT16_SINCE and not any(no in card for no in _NO_FLOAT16)


@lru_cache(maxsize=1)
def _precision_of_the_cpu() -> Precision:
    kind = _instructions()
    if not kind:
        return Precision(torch.float32, f"the CPU has neither {' nor '.join(_INSTRUCTIONS.values())}")
    exact, half = _seconds_of_a_product()
    measured = f"with {kind}, products in bfloat16 took {half / exact:.2f} of the time of float32"
    return Precision(torch.bfloat16 if half * _GAIN <= exact else torch.float32, measured)


def _instructions() -> str:
    """What the CPU has for products of bfloat16 numbers, or nothing."""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return next((name for key, name in _INSTRUCTIONS.items() if has.get(key)), "")


def _seconds_of_a_product() -> tuple[float, float]:
    """Shortest times of one product in float32 and in bfloat16, taken in turn: other processes disturb both alike."""
    a, b = torch.full((128, 256), 0.5), torch.full((256, 512), 0.5)
    factors = {dtype: (a.to(dtype), b.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}
    best = dict.fromkeys(factors, float("inf"))
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        for dtype, pair in factors.items():
            begun = time.perf_counter()
            torch.mm(*pair)
            best[dtype] = min(best[dtype], time.perf_counter() - begun)
    return best[torch.float32], best[torch.bfloat16]


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
