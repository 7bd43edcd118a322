"""The saved state of a session: what the segmenter remembers, and where the session stood."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import torch

from vidseg import __version__
from vidseg.errors import UsageError
from vidseg.types import State, Tracker
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


def join_state(segmenter: State, intake: FrameIntake, names: Mapping[int, str], tracker: Tracker) -> State:
    """The state of a session that has seen a frame, as plain tensors and scalars that nothing changes later."""
    height, width = intake.size or (0, 0)
    own: State = {
        "version": __version__,
        "tracker": type(tracker).__name__,
        "tracker_options": json.dumps(_options(tracker)),
        "next_index": intake.next_index,
        "height": height,
        "width": width,
        "names": json.dumps(names),
    }
    state: State = {_OWN + name: value for name, value in own.items()}
    return state | {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in segmenter.items()}


def split_state(state: Mapping[str, Any], name: str, tracker: Tracker) -> SavedState:
    """What :func:`join_state` has joined, for a session whose tracker was called ``name``.

    Raises:
        UsageError: something else, or a state of another version, another tracker, or one with other options.
    """
    if not isinstance(state, Mapping) or _OWN + "version" not in state:
        raise UsageError("this is not the state of a session: session.state_dict() gives one")
    version, kind = state[_OWN + "version"], state.get(_OWN + "tracker")
    if version != __version__:
        raise UsageError(f"the state was made with vidseg {version}, this session has {__version__}")
    if kind not in (type(tracker).__name__, name):
        raise UsageError(f"the state was made with tracker {kind}, this session has {name}")
    try:
        options = dict(json.loads(state.get(_OWN + "tracker_options", "{}")))
        saved = SavedState(
            {key: value for key, value in state.items() if not key.startswith(_OWN)},
            int(state[_OWN + "next_index"]),
            (int(state[_OWN + "height"]), int(state[_OWN + "width"])),
            {int(i): str(label) for i, label in json.loads(state[_OWN + "names"]).items()},
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError("the state of the session is damaged") from error
    for key, value in _options(tracker).items():
        if options.get(key, value) != value:
            was = f"tracker option {key}={options[key]}"
            raise UsageError(f"the state was made with {was}, this session has {key}={value}")
    return saved


def _options(tracker: Tracker) -> dict[str, Any]:
    """What a state of a tracker depends on, where it is known; not where its weights come from."""
    options = getattr(tracker, "options", None)
    if not is_dataclass(options) or isinstance(options, type):
        return {}
    values: dict[str, Any] = {}
    for name, value in asdict(options).items():
        values |= {f"{name}.{part}": v for part, v in value.items()} if isinstance(value, dict) else {name: value}
    plain = (bool, int, float, str)
    return {n: v for n, v in values.items() if n != "weights" and (v is None or isinstance(v, plain))}
