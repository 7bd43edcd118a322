from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from vidseg.errors import UsageError
from vidseg.runtime import loses_device, resolve_device, resolve_dtype


@pytest.mark.parametrize(
    "name", ["meta", "xpu", "hpu:0", "vulkan", "cpu:3", "cuda:-1", "cuda:9999999999", "CPU", "", "gpu"]
)
def test_only_devices_that_run_the_networks_are_taken(name: str) -> None:
    with pytest.raises(UsageError, match=f"--device {name}: allowed are auto, cpu, cuda, cuda:N and mps"):
        resolve_device(name)


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_is_automatic_where_the_device_computes_in_it(
    native: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert resolve_dtype("auto", torch.device("cuda")) == dtype
    assert resolve_dtype("bfloat16", torch.device("cuda")) == torch.bfloat16  # who asks for it gets it
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32


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
