"""Do the tensors of a file fit a network: every name accounted for, every shape equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from vidseg.errors import WeightsError


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Refuse a state dict that lacks tensors, has others, or has one of another shape.

    Args:
        state: the tensors of a file.
        expected: those of the network (they may be on the meta device).
        where: the file, for the error.

    Raises:
        WeightsError: with the first names, or the first shape, that differ.
    """
    missing = [k for k in expected if k not in state]
    surplus = [k for k in state if k not in expected]
    if missing or surplus:
        raise WeightsError(
            f"{where} does not fit: {len(missing)} tensors missing ({_list(missing)}), {len(surplus)} not known"
            f" ({_list(surplus)})"
        )
    for key, value in expected.items():
        if state[key].shape != value.shape:
            raise WeightsError(f"{where}: {key} has shape {tuple(state[key].shape)} instead of {tuple(value.shape)}")


def _list(names: Sequence[str], limit: int = 3) -> str:
    shown = ", ".join(names[:limit]) or "none"
    return shown + (f", and {len(names) - limit} more" if len(names) > limit else "")
