"""CascadePSP after the network (HQ-SAM, table 4), through the published package ``segmentation-refinement``.

CascadePSP: Toward Class-Agnostic and Very High-Resolution Segmentation (Cheng et al. 2020). Masks that something else
refined, such as CRM, are scored with ``masks_from`` instead.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vidseg.errors import UsageError, WeightsError
from vidseg.masks.files import FOREGROUND
from vidseg.types import Array
from vidseg.weights.read import read_weights

PACKAGE = "segmentation_refinement"
PostRefiner = Callable[[Array, npt.NDArray[np.bool_]], npt.NDArray[np.bool_]]
"""Another mask (H, W) for an image (H, W, 3) and a mask (H, W)."""


def load_cascadepsp(weights: Path, device: torch.device) -> PostRefiner:
    """The refiner of the package with the weights of a file, as its authors publish them.

    Raises:
        UsageError: the extra is not installed. WeightsError: a file that is missing, unsafe or of another network.
    """
    try:
        package: Any = importlib.import_module(PACKAGE)
    except ImportError:
        raise UsageError("--cascadepsp needs the extra: pip install 'vidseg[cascadepsp]'") from None
    read_weights(weights)  # looks into the file first: the package loads what it is given
    with tempfile.TemporaryDirectory() as folder:  # where the package expects a file of that name
        (Path(folder) / "model").symlink_to(weights.resolve())
        try:
            refiner = package.Refiner(device=str(device), model_folder=folder, download_and_check_model=False)
        except (RuntimeError, KeyError, AttributeError) as error:
            first = str(error).splitlines()[0]
            raise WeightsError(f"{weights}: no weights of CascadePSP ({first})") from error

    def refine(image: Array, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        if not mask.any():
            return mask
        refined = refiner.refine(np.ascontiguousarray(image), mask.astype(np.uint8) * np.uint8(255))
        return np.asarray(refined > FOREGROUND)

    return refine
