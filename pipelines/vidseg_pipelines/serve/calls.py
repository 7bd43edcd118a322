"""What was said to a session, as it comes over the wire and is noted on the disk, and how it is repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vidseg.errors import InputError
from vidseg.limits import PIXEL_LIMIT
from vidseg.masks.rle import decode, encode, from_coco
from vidseg.names import check_label
from vidseg.types import Frame, Prompt
from vidseg_pipelines.prompt_forms import make_prompt
from vidseg_pipelines.serve.drafts import DraftingSession

Mask = npt.NDArray[np.bool_]
Call = dict[str, Any]
"""``call`` (step, add, correct, remove) with what was said: a frame's number, an object's ``id`` and a prompt."""


def arrays_in(said: Call) -> dict[str, Any]:
    """A prompt as sessions take it: its mask is an array.

    Raises:
        InputError: the mask is not one.
    """
    return said if said.get("mask") is None else {**said, "mask": _mask(said["mask"])}


def prompt_of(object_id: int, said: Call) -> Prompt:
    """The prompt of an object, on a frame that is still to be set.

    Raises:
        UsageError: what cannot be right.
    """
    if said.get("label") is not None:
        check_label("label", said["label"])
    return make_prompt(0, object_id, **arrays_in(said))


def drafted(call: Call, mask: Mask) -> Call:
    """A call that was answered with a mask before it was drawn in full."""
    return {**call, "quick": encode(mask).to_coco()}


def repeat(session: DraftingSession, call: Call, frame_of: Callable[[Call], Frame | npt.NDArray[np.uint8]]) -> None:
    """Make a call again; ``frame_of`` gives the frame of a step.

    Raises:
        InputError: it is none. VidsegError: it fails now.
    """
    kind = call.get("call")
    if kind in ("add", "correct"):
        prompt = prompt_of(call["id"], {k: v for k, v in call.items() if k not in ("call", "id", "quick")})
        if "quick" in call:
            session.keep(prompt, _mask(call["quick"]))
            return
        session.settle()
        session.apply(prompt)
    elif kind == "remove":
        session.settle()
        session.remove(call["id"])
    elif kind == "step":
        session.settle()
        session.step(frame_of(call))
    else:
        raise InputError(f"unknown call {kind!r}")


def _mask(rle: dict[str, Any]) -> Mask:
    return decode(from_coco(rle, PIXEL_LIMIT))
