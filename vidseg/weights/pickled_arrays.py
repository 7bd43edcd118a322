"""Plain pickles of named numpy arrays as tensors, without running anything that is in them."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from vidseg.errors import WeightsError
from vidseg.weights.unwrap import ExpectedNetwork, unwrap

_NUMPY = ("numpy.core", "numpy._core")
_ALLOWED = {
    ("collections", "OrderedDict"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"{core}.multiarray", name) for core in _NUMPY for name in ("_reconstruct", "scalar")),
    *((f"{core}.numeric", "_frombuffer") for core in _NUMPY),
}


def read_arrays(stream: IO[bytes], path: Path, network: ExpectedNetwork) -> dict[str, Tensor]:
    """The tensors of a ``network`` in a pickle of numpy arrays, as detectron2 writes it; ``path`` is for errors.

    Raises:
        WeightsError: damaged, asking for anything but arrays, or without arrays of the network.
    """
    try:
        content: Any = _ArraysOnly(stream, encoding="latin1").load()
    except WeightsError as error:
        raise WeightsError(f"{path} refused: {error}") from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise WeightsError(f"{path} ({path.stat().st_size:,} bytes) is damaged or truncated: {error}") from error
    arrays: dict[str, Any] = unwrap(
        *(content, path, (np.ndarray, np.generic), network),
        named="named arrays",
        complaint="is not an array of numbers",
    )
    tensors = {}
    for key, value in arrays.items():
        if value.dtype.kind not in "fiu":
            raise WeightsError(f"{path}: '{key}' is not an array of numbers")
        array = np.asarray(value)
        tensors[key] = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensors


class _ArraysOnly(pickle.Unpickler):
    """Refuses every global that numpy arrays and dictionaries do not need."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) == ("_codecs", "encode"):
            return _latin1
        if (module_name, global_name) not in _ALLOWED:
            raise WeightsError(f"it requests {module_name}.{global_name}, which could run code")
        if module_name == "collections":
            return OrderedDict
        return super().find_class(module_name.replace("numpy.core", "numpy._core"), global_name)


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 pickles bytes in old protocols."""
    if encoding != "latin1":
        raise WeightsError(f"it requests the codec {encoding!r}")
    return text.encode("latin1")
