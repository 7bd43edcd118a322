"""What trackers that follow masks have in common: sizes, prompts, blank frames, who is forgotten, and the results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vidseg.errors import InputError, UsageError
from vidseg.prompt_text import fit_prompts
from vidseg.runtime import send
from vidseg.types import Frame, Prompt, State, Tracks, VideoInfo
from vidseg_trackers.mask_tracking.absence import is_blank
from vidseg_trackers.mask_tracking.label_map import objects_in_label_map
from vidseg_trackers.mask_tracking.preprocess import InnerGeometry, prepare_frame, prepare_masks


class Look(NamedTuple):
    """What a frame shows by itself: the normalised frame, and what the network sees in it (None: not computed yet)."""

    image: Float[Tensor, "1 3 h w"]
    seen: Any = None


class MaskTracker(ABC):
    """One video at a time, one step per frame, strictly causal.

    A prompt is a mask (H, W) of a new object, or of a known one, which it corrects: that frame then shows the given
    mask, and memory keeps it. Other objects keep their prediction outside the given masks. Where given masks overlap,
    the smaller one is in front. Ids are the prompts' own; the tracker never makes up or reuses one, and an object that
    left keeps its id when it comes back.
    """

    lookahead = 0
    wants_masks = True
    finds_objects = False
    name: ClassVar[str]
    """Of the tracker, in messages."""

    def __init__(self, device: torch.device, *, size: int, antialias: bool, absence: bool, forget_after: int) -> None:
        """``size``: the shorter side inside, -1 = the video's own; the other arguments are the options of that name."""
        self.device = device
        self._size, self._antialias, self._absence, self._forget_after = size, antialias, absence, forget_after
        self._geometry: InnerGeometry | None = None
        self._absent: dict[int, int] = {}
        self._expected: dict[int, Callable[[], Look]] = {}

    @property
    def looks_ahead(self) -> bool:
        """Whether :meth:`look` takes a good part of a step's time, and what it gives is small."""
        return False

    @property
    @abstractmethod
    def ids(self) -> list[int]:
        """The objects that are followed."""

    @abstractmethod
    def _restart(self) -> None:
        """Forget everything."""

    @abstractmethod
    def _propagate(
        self, look: Look, masks: Mapping[int, Float[Tensor, "H W"]], geometry: InnerGeometry
    ) -> Float[Tensor, "N1 h w"]:
        """Probabilities of the background and of :attr:`ids` on a frame, given masks at the padded size."""

    def _see(self, image: Float[Tensor, "1 3 h w"], geometry: InnerGeometry) -> Any:
        """What the network sees in a normalised frame, whatever came before it."""
        return None

    def _notice(self, image: Float[Tensor, "1 3 h w"]) -> None:  # noqa: B027
        """Take note of a normalised frame before anything else."""

    @abstractmethod
    def _skip(self) -> None:
        """A frame that shows nothing: only time goes on."""

    @abstractmethod
    def _remove(self, ids: Sequence[int]) -> None:
        """Forget objects, all of which are known."""

    def start(self, video: VideoInfo) -> None:
        """Forget everything and prepare for a video."""
        self._restart()
        self._geometry = InnerGeometry.of((video.height, video.width), self._size)
        self._absent, self._expected = {}, {}

    @torch.inference_mode()
    def look(self, frame: Frame) -> Look:
        """What a frame shows by itself. Changes nothing: another thread may look while this one steps."""
        geometry = self._check(frame, ())
        image = prepare_frame(frame.rgb, geometry, self._antialias, self.device)
        return Look(image, self._see(image, geometry))

    def expect(self, index: int, look: Callable[[], Look]) -> None:
        """The step of frame ``index`` calls ``look`` instead of looking itself."""
        self._expected[index] = look

    @torch.inference_mode()
    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        """The objects on the next frame; those that are not seen are left out.

        Raises:
            InputError: the frame's size is not the video's.
            UsageError: a prompt that is no mask of the frame's size, is empty, or names an object twice.
        """
        geometry, expected = self._check(frame, prompts), self._expected.pop(frame.index, None)
        if not self.ids and not prompts:
            return [_tracks(frame.index, [], [], [], torch.zeros(0, *geometry.inner, device=self.device))]
        given: dict[int, npt.NDArray[np.bool_]] = {p.object_id: p.mask for p in prompts if p.mask is not None}
        masks = prepare_masks(given, geometry, self.device)
        look = expected() if expected else Look(prepare_frame(frame.rgb, geometry, self._antialias, self.device))
        self._notice(look.image)
        if self._absence and not masks and is_blank(look.image):
            self._skip()
            tracks = _tracks(frame.index, [], [], [], torch.zeros(0, *geometry.inner, device=self.device))
        else:
            probabilities = self._propagate(look, masks, geometry)
            seen = objects_in_label_map(probabilities, frame.hw)
            ids = [self.ids[one.row] for one in seen]
            rows = probabilities[send(torch.tensor([1 + one.row for one in seen], dtype=torch.int64), self.device)]
            tracks = _tracks(frame.index, ids, [one.box for one in seen], [one.score for one in seen], rows)
        if self._forget_after:
            self._forget_absent(set(tracks.ids.tolist()))
        return [tracks]

    def finish(self) -> list[Tracks]:
        """Nothing is held back."""
        return []

    def remove(self, ids: Sequence[int]) -> None:
        """Forget objects with their memory; unknown ids are ignored."""
        known = [i for i in ids if i in self.ids]
        if known:
            self._remove(known)
        for i in known:
            self._absent.pop(i, None)

    def state_dict(self) -> State:
        """All state; a tracker of the same options and video that loads it continues bit-identically."""
        return {"absent": torch.tensor(list(self._absent.items()), dtype=torch.int64).reshape(-1, 2)}

    def load_state_dict(self, state: State) -> None:
        """Restore what :meth:`state_dict` gave; call :meth:`start` before."""
        absent = state["absent"]
        self._absent = dict(absent.tolist()) if isinstance(absent, Tensor) else {}

    def _check(self, frame: Frame, prompts: Sequence[Prompt]) -> InnerGeometry:
        geometry = self._geometry
        if geometry is None:
            raise UsageError(f"{self.name}: start(video) comes before the first step")
        if frame.hw != geometry.original:
            (height, width), (expected_height, expected_width) = frame.hw, geometry.original
            raise InputError(
                f"frame {frame.index} has {width}x{height} pixels, the video {expected_width}x{expected_height}: "
                "one size per run"
            )
        fit_prompts(prompts, frame.hw)
        for prompt in prompts:
            if prompt.mask is None:
                raise UsageError(
                    f"object {prompt.object_id} on frame {frame.index}: {self.name} follows masks; draw boxes and "
                    "points with HQ-SAM first"
                )
        return geometry

    def _forget_absent(self, present: set[int]) -> None:
        for i in self.ids:
            self._absent[i] = 0 if i in present else self._absent.get(i, 0) + 1
        self.remove([i for i in self.ids if self._absent[i] >= self._forget_after])


def _tracks(
    index: int, ids: Sequence[int], boxes: Sequence[Sequence[int]], scores: Sequence[float], masks: Tensor
) -> Tracks:
    return Tracks(
        index,
        np.array(ids, np.int64),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        masks=masks,
    )
