"""Networks through torch.compile: what that needs, where its results are kept, and for which inputs it is done.

``torch._dynamo`` is imported by what compiles, not by this module.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from vidseg.errors import UsageError
from vidseg.storage import cache_folder

SHAPES = 4
"""Most shapes of inputs for which one network is compiled, each for half a minute or more."""
_CPP = {"darwin": "clang++", "win32": "cl"}
"""Compilers for C++ that torch looks for, by platform; g++ on others."""


class Compiled:
    """A network, compiled for the shapes of inputs that come first; others it computes as it is. Threads can share it.

    On a CUDA device it runs as CUDA graphs (torch's mode "reduce-overhead"). What was compiled is kept for other
    processes in ``compiled`` of :func:`~vidseg.storage.cache_folder`, or where ``TORCHINDUCTOR_CACHE_DIR`` says.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        """``network`` maps a tensor to tensors, without gradients, and is on ``device`` (UsageError: no compiler)."""
        check_compiler(device)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
        self._network, self._graphs = network, device.type == "cuda"
        self._compiled = torch.compile(network, dynamic=False, mode="reduce-overhead" if self._graphs else "default")
        self._shapes: set[torch.Size] = set()
        self._lock = threading.Lock()

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the network gives for ``x``.

        Raises:
            UsageError: it could not be compiled.
        """
        with self._lock:
            if x.shape not in self._shapes and len(self._shapes) == SHAPES:
                return self._network(x)
            if self._graphs:
                torch.compiler.cudagraph_mark_step_begin()
            try:
                with _frozen() if not self._graphs else nullcontext():
                    result = self._compiled(x)
            except RuntimeError as error:
                if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                    raise
                reason = " ".join(str(error).split())[:300]
                raise UsageError(f"--compile: torch.compile failed ({reason}); leave --compile out") from error
            self._shapes.add(x.shape)
            # what a graph gives lies in memory that its next replay writes
            return tuple(part.clone() for part in result) if self._graphs else result


def _frozen() -> AbstractContextManager[None]:
    """Weights are taken for constants: else convolutions and what follows them are not joined."""
    from torch._inductor import config

    return config.patch(freezing=True)


def check_compiler(device: torch.device) -> None:
    """Refuse to compile networks where that cannot work, at once.

    Raises:
        UsageError: torch.compile does not know the device well; no compiler for C++, no headers of Python, no Triton.
    """
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--compile: on the CPU and on CUDA only, not on {device.type}; leave --compile out")
    # Triton makes its own code for the GPU, and has what calls it from the host compiled
    variable, usual = ("CC", "gcc") if device.type == "cuda" else ("CXX", _CPP.get(sys.platform, "g++"))
    name = os.environ.get(variable) or usual
    if shutil.which(name) is None:
        raise UsageError(
            f"--compile: no compiler ({name}) here: install one (Debian and Ubuntu: apt install g++) or name one in"
            f" {variable}, or leave --compile out"
        )
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        raise UsageError(
            "--compile: no Python.h here: install the headers of Python (Debian and Ubuntu: apt install python3-dev)"
            " or leave --compile out"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UsageError("--compile: no Triton here: pip install triton, or leave --compile out")
