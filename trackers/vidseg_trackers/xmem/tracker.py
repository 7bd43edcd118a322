"""The ``xmem`` tracker: follows masks from the frames where they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vidseg.errors import InputError, UsageError
from vidseg.prompts import fit_prompts
from vidseg.types import Frame, Prompt, State, Tracks, VideoInfo
from vidseg_trackers.xmem.absence import Presence, is_blank
from vidseg_trackers.xmem.labels import find_objects
from vidseg_trackers.xmem.network import XMem
from vidseg_trackers.xmem.online import Online
from vidseg_trackers.xmem.options import XMemOptions
from vidseg_trackers.xmem.preprocess import Geometry, prepare_frame, prepare_masks
from vidseg_trackers.xmem.weights import load_network

DEFAULT_WEIGHTS = XMemOptions().weights
_THUMBNAIL = (16, 16)  # what scene cuts are seen on
_MEAN_STD = 0.226  # of the normalisation: brings differences of normalised images back to the scale 0..1


def build(options: Mapping[str, object], *, device: torch.device, dtype: torch.dtype, offline: bool) -> XMemTracker:
    """Entry point ``xmem``.

    Raises:
        UsageError: unknown or wrong options.
        WeightsError: the weights are missing, damaged or no XMem.
    """
    chosen = XMemOptions.from_mapping(options)
    return XMemTracker(load_network(chosen.weights, device=device, dtype=dtype, offline=offline), chosen)


class XMemTracker:
    """One video at a time, one step per frame, strictly causal.

    A prompt is a mask (H, W) of a new object, or of a known one, which it corrects: that frame then shows the given
    mask and becomes the object's reference frame in memory. Other objects keep their prediction outside the given
    masks. Where given masks overlap, the smaller one is in front. Ids are the prompts' own; the tracker never makes up
    or reuses one, and an object that left keeps its id when it comes back.
    """

    lookahead = 0
    wants_masks = True
    finds_objects = False

    def __init__(self, network: XMem, options: XMemOptions | None = None) -> None:
        """A tracker around a network in evaluation mode, on its device and in its dtype; similarities are float32."""
        self.options = options or XMemOptions()
        parameter = network.decoder.pred.weight
        self.device, self.dtype = parameter.device, parameter.dtype
        self.online = Online(network, self.options)
        self._size = network.config.size if self.options.size is None else self.options.size
        self._geometry: Geometry | None = None
        self._thumbnail: Tensor | None = None
        self._absent: dict[int, int] = {}
        self._presence = Presence()

    def start(self, video: VideoInfo) -> None:
        """Forget everything and prepare for a video."""
        self.online.clear()
        self._geometry = Geometry.of((video.height, video.width), self._size)
        self._thumbnail = None
        self._absent = {}
        self._presence = Presence()

    @torch.inference_mode()
    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        """The objects on the next frame; those that are not seen are left out.

        Raises:
            InputError: the frame's size is not the video's.
            UsageError: a prompt that is no mask of the frame's size, is empty, or names an object twice.
        """
        geometry = self._check(frame, prompts)
        if not self.online.ids and not prompts:
            return [_tracks(frame.index, [], [], [], torch.zeros(0, *geometry.inner))]
        given = {p.object_id: p.mask for p in prompts if p.mask is not None}
        masks = prepare_masks(given, geometry, self.device)
        image = prepare_frame(frame.rgb, geometry, self.options.antialias, self.device)
        if self.options.scene_cut and self._is_cut(image):
            self.online.forget_motion()
        judged = self.options.absence and self.options.memory == "correct"
        if judged and not masks and is_blank(image):
            self.online.skip()
            if self.options.forget_after:
                self._forget_absent(set())
            return [_tracks(frame.index, [], [], [], torch.zeros(0, *geometry.inner))]
        judge = partial(self._presence.absent, image) if judged else None
        probabilities = geometry.unpad(self.online.step(geometry.pad(image).to(self.dtype), masks, judge))
        if masks:
            self._presence.prompted(image)
        seen = find_objects(probabilities, frame.size)
        ids = [self.online.ids[one.row] for one in seen]
        rows = probabilities[[1 + one.row for one in seen]]
        tracks = _tracks(frame.index, ids, [one.box for one in seen], [one.score for one in seen], rows)
        if self.options.forget_after:
            self._forget_absent(set(ids))
        return [tracks]

    @property
    def can_remove(self) -> bool:
        """The official memory cannot."""
        return self.options.memory == "correct"

    def remove(self, ids: Sequence[int]) -> None:
        """Forget objects with their memory."""
        known = [i for i in ids if i in self.online.ids]
        if known:
            self.online.remove(known)
        self._presence.forget(known)
        for i in known:
            self._absent.pop(i, None)

    def finish(self) -> list[Tracks]:
        """Nothing is held back."""
        return []

    def state_dict(self) -> State:
        """All state; a tracker of the same options and video that loads it continues bit-identically."""
        state: State = {f"online.{name}": value for name, value in self.online.state_dict().items()}
        if self._thumbnail is not None:
            state["thumbnail"] = self._thumbnail
        state |= {f"presence.{name}": value for name, value in self._presence.state_dict().items()}
        state["absent"] = torch.tensor(list(self._absent.items()), dtype=torch.int64).reshape(-1, 2)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor | int | float | str]) -> None:
        """Restore what :meth:`state_dict` gave; call :meth:`start` before."""
        inner = {name.removeprefix("online."): v for name, v in state.items() if name.startswith("online.")}
        self.online.load_state_dict(inner, self.device)
        inner = {name.removeprefix("presence."): v for name, v in state.items() if name.startswith("presence.")}
        self._presence.load_state_dict(inner, self.device)
        thumbnail, absent = state.get("thumbnail"), state["absent"]
        self._thumbnail = thumbnail.to(self.device, copy=True) if isinstance(thumbnail, Tensor) else None
        self._absent = dict(absent.tolist()) if isinstance(absent, Tensor) else {}

    def _check(self, frame: Frame, prompts: Sequence[Prompt]) -> Geometry:
        geometry = self._geometry
        if geometry is None:
            raise UsageError("xmem: start(video) comes before the first step")
        (height, width), (wanted_height, wanted_width) = frame.size, geometry.original
        if frame.size != geometry.original:
            raise InputError(
                f"frame {frame.index} has {width}x{height} pixels, the video {wanted_width}x{wanted_height}: "
                "one size per run"
            )
        fit_prompts(prompts, frame.size)
        for prompt in prompts:
            if prompt.mask is None:
                raise UsageError(
                    f"object {prompt.object_id} on frame {frame.index}: xmem follows masks; draw boxes and points with "
                    "HQ-SAM first"
                )
        return geometry

    def _is_cut(self, image: Tensor) -> bool:
        """Does this frame differ from the last by more than the option allows? Remembers the frame."""
        thumbnail = torch.nn.functional.adaptive_avg_pool2d(image, _THUMBNAIL)
        last, self._thumbnail = self._thumbnail, thumbnail
        return last is not None and float((thumbnail - last).abs().mean()) * _MEAN_STD > self.options.scene_cut

    def _forget_absent(self, present: set[int]) -> None:
        for i in self.online.ids:
            self._absent[i] = 0 if i in present else self._absent.get(i, 0) + 1
        gone = [i for i in self.online.ids if self._absent[i] >= self.options.forget_after]
        if gone:
            self.remove(gone)


def _tracks(
    index: int, ids: Sequence[int], boxes: Sequence[Sequence[int]], scores: Sequence[float], masks: Tensor
) -> Tracks:
    return Tracks(
        index,
        np.array(ids, np.int64),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        masks=masks.cpu().numpy(),
    )
