from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch

from vidseg import runtime
from vidseg.errors import UsageError
from vidseg.runtime import choose_precision, loses_device, resolve_device, resolve_dtype

INSTRUCTIONS = runtime._instructions
"""As it is outside the tests, where it is replaced (conftest.py)."""


@pytest.mark.parametrize(
    "name", ["meta", "xpu", "hpu:0", "vulkan", "cpu:3", "cuda:-1", "cuda:9999999999", "CPU", "", "gpu"]
)
def test_only_devices_that_run_the_networks_are_taken(name: str) -> None:
    with pytest.raises(UsageError, match=f"--device {name}: allowed are auto, cpu, cuda, cuda:N and mps"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("card", "capability", "bfloat16", "dtype"),
    [
        ("NVIDIA H100 80GB HBM3", (9, 0), True, torch.bfloat16),
        ("Tesla T4", (7, 5), False, torch.float16),
        ("NVIDIA GeForce GTX 1650", (7, 5), False, torch.float32),
        ("NVIDIA GeForce GTX 1080 Ti", (6, 1), False, torch.float32),
    ],
)
def test_half_precision_is_automatic_where_the_card_computes_in_it(
    card: str, capability: tuple[int, int], bfloat16: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: card)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or bfloat16
    )
    assert resolve_dtype("auto", torch.device("cuda")) == dtype
    assert resolve_dtype("bfloat16", torch.device("cuda")) == torch.bfloat16  # who asks for it gets it


CPU = torch.device("cpu")


@pytest.fixture
def fresh_choice() -> Iterator[None]:
    runtime._precision_of_the_cpu.cache_clear()
    yield
    runtime._precision_of_the_cpu.cache_clear()


@pytest.mark.parametrize(
    ("has", "seconds", "dtype", "reason"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, (8.0, 1.0), torch.bfloat16, "with AMX, products .* took 0.12 of"),
        ({"amx_bf16": False, "avx512_bf16": True}, (2.4, 1.0), torch.bfloat16, "with AVX512-BF16, .* took 0.42 of"),
        ({"avx512_bf16": True}, (1.2, 1.0), torch.float32, "took 0.83 of the time of float32"),
        ({"avx2": True}, None, torch.float32, "the CPU has neither AMX nor AVX512-BF16"),
    ],
)
@pytest.mark.usefixtures("fresh_choice")
def test_a_cpu_computes_in_bfloat16_where_it_has_instructions_that_gain(
    has: dict[str, bool],
    seconds: tuple[float, float] | None,
    dtype: torch.dtype,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[int] = []
    monkeypatch.setattr(runtime, "_instructions", INSTRUCTIONS)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(runtime, "_seconds_of_a_product", lambda: measured.append(1) or seconds)
    chosen = [choose_precision("auto", CPU) for _ in range(3)]
    assert chosen[0].dtype == dtype and re.search(reason, chosen[0].reason)
    assert chosen[0] is chosen[2] and len(measured) == (seconds is not None)  # once per process, and only if need be
    assert choose_precision("bfloat16", CPU) == runtime.Precision(torch.bfloat16, "--dtype bfloat16")


def test_the_measurement_ends_after_a_tenth_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which a product in bfloat16 takes 0.02 s, and one in float32 0.01 s."""
    now = [0.0]
    took = {torch.float32: 0.01, torch.bfloat16: 0.02}

    def multiply(a: torch.Tensor, b: torch.Tensor) -> None:
        now[0] += took[a.dtype]

    monkeypatch.setattr(runtime.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch, "mm", multiply)
    assert runtime._seconds_of_a_product() == pytest.approx((0.01, 0.02))
    assert now[0] <= 0.1


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (RuntimeError("Expected all tensors to be on the same device, but found cpu and cuda:0"), False),
        (ValueError("CUDA error: it is none"), False),
    ],
)
def test_errors_that_leave_the_device_unusable(error: Exception, lost: bool) -> None:
    assert loses_device(error) == lost
