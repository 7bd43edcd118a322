"""The saved state of a session: what the segmenter remembers, and where the session stood."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vidseg import __version__
from vidseg.errors import UsageError
from vidseg.types import State
from vidseg_pipelines.frame_intake import FrameIntake

_OWN = "session."


@dataclass(frozen=True)
class SavedState:
    """A state that was taken apart."""

    segmenter: State
    next_index: int
    size: tuple[int, int]
    """(height, width) of the frames."""
    names: Mapping[int, str]
    """What the user calls objects, by id."""


def join_state(segmenter: State, intake: FrameIntake, names: Mapping[int, str], tracker: str) -> State:
    """The state of a session that has seen a frame, as plain tensors and scalars that nothing changes later."""
    height, width = intake.size or (0, 0)
    own: State = {
        "version": __version__,
        "tracker": tracker,
        "next_index": intake.next_index,
        "height": height,
        "width": width,
        "names": json.dumps(names),
    }
    state: State = {_OWN + name: value for name, value in own.items()}
    return state | {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in segmenter.items()}


def split_state(state: Mapping[str, Any], *trackers: str) -> SavedState:
    """What :func:`join_state` has joined, with one of these names of a tracker.

    Raises:
        UsageError: something else, or a state of another version or tracker.
    """
    if not isinstance(state, Mapping) or _OWN + "version" not in state:
        raise UsageError("this is not the state of a session: session.state_dict() gives one")
    for name, what, expected in (("version", "vidseg", (__version__,)), ("tracker", "tracker", trackers)):
        if (found := state.get(_OWN + name)) not in expected:
            raise UsageError(f"the state was made with {what} {found}, this session has {expected[-1]}")
    try:
        return SavedState(
            {key: value for key, value in state.items() if not key.startswith(_OWN)},
            int(state[_OWN + "next_index"]),
            (int(state[_OWN + "height"]), int(state[_OWN + "width"])),
            {int(i): str(name) for i, name in json.loads(state[_OWN + "names"]).items()},
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError("the state of the session is damaged") from error
