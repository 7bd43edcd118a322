"""Many frames of a session's video, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.types import Prompt
from vidseg.video.random_access import RandomAccess
from vidseg_pipelines.following import follow
from vidseg_pipelines.frame_steps import FrameStep
from vidseg_pipelines.serve.models import Networks
from vidseg_pipelines.serve.served_session import ServedSession


def forward(served: ServedSession, frames: int | None = None) -> Iterator[FrameMasks]:
    """The masks of the next frames, at most so many.

    Raises:
        UsageError: the frames are pushed. InputError: one cannot be read.
    """
    stands = served.describe()
    if stands["frames"] is None:
        raise UsageError("frames are pushed into this session: send them with step")
    left = stands["frames"] - 1 - stands["frame"]
    for _ in range(left if frames is None else min(frames, left)):
        yield served.step()


def backward(
    served: ServedSession, networks: Callable[[], Networks], frames: int | None = None
) -> Iterator[FrameMasks]:
    """The objects of the frame just seen, followed towards the beginning of the video; where the session stands does
    not change. Results of other objects stay.

    Raises:
        UsageError: the frames were pushed, and are gone; nothing to follow.
    """
    shown = served.masks()
    if served.video is None:
        raise UsageError("frames that were pushed are not kept: give the session a video to go back in it")
    if not shown.ids:
        raise UsageError("no object on this frame to follow")
    prompts = [
        Prompt(shown.frame_index, i, mask=mask, label=label)
        for i, mask, label in zip(shown.ids, shown.masks, shown.labels, strict=True)
    ]
    last = 0 if frames is None else max(0, shown.frame_index - frames)
    with closing(RandomAccess(served.video, cache_bytes=0)) as video:
        steps = (
            FrameStep(frame, prompts if frame.index == shown.frame_index else ())
            for frame in video.backward(shown.frame_index, last, scratch=served.store.folder)
        )
        for frame, found in follow(networks().models(), video.info, steps, backward=True):
            if frame.index < shown.frame_index:
                yield served.merge(found, shown.ids).with_hw(frame.hw)
