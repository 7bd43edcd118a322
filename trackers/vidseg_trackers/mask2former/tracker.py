"""The ``mask2former`` tracker: finds objects with classes and identities by itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vidseg.backbones.swin import SwinConfig
from vidseg.errors import InputError, UsageError
from vidseg.masks.boxes import mask_box
from vidseg.state import nested, prefixed
from vidseg.types import Frame, Prompt, State, Tracks, VideoInfo
from vidseg_trackers.mask2former.classes import class_set
from vidseg_trackers.mask2former.clip import best_objects, once_per_query, query_masks, run_clip
from vidseg_trackers.mask2former.frames import FrameSizes, Rgb, fit_frame, full_logits, shrink, without_padding
from vidseg_trackers.mask2former.matching import OnlineMatcher
from vidseg_trackers.mask2former.network import Mask2Former
from vidseg_trackers.mask2former.options import Mask2FormerOptions
from vidseg_trackers.mask2former.weights import load_network


def build(
    options: Mapping[str, object], *, device: torch.device, dtype: torch.dtype, offline: bool
) -> Mask2FormerTracker:
    """Entry point ``mask2former``.

    Raises:
        UsageError: unknown or wrong options.
        WeightsError: the weights are missing, damaged or no Mask2Former.
    """
    chosen = Mask2FormerOptions.from_mapping(options)
    network = load_network(chosen.weights, video=chosen.video, device=device, offline=offline)
    return Mask2FormerTracker(network, chosen, dtype=dtype)


def trained_size(network: Mask2Former) -> int:
    """The shorter side at which the published networks of this kind are evaluated."""
    return 480 if isinstance(network.config.backbone, SwinConfig) else 360


class Mask2FormerTracker:
    """Holds resized frames until a clip is full (one frame, a window, or the whole video), then looks at all of it."""

    wants_masks = False
    finds_objects = True

    def __init__(
        self, network: Mask2Former, options: Mask2FormerOptions, *, dtype: torch.dtype = torch.float32
    ) -> None:
        """A tracker around a network in evaluation mode, on the network's device.

        Raises:
            UsageError: ``options.classes`` does not fit the network.
        """
        self.network, self.options, self.dtype = network, options, dtype
        self.lookahead = sys.maxsize if options.mode == "offline" else options.window - 1
        classes = class_set(options.classes, network.config.classes, options.weights)
        self.classes = classes.ids
        """Numbers of the data set's classes by name."""
        self._names = classes.names
        self._matcher = OnlineMatcher(options)
        self._frames: list[Rgb] = []
        self._indices: list[int] = []
        self._sizes = FrameSizes((0, 0), (0, 0), (0, 0))

    def start(self, video: VideoInfo) -> None:
        """Forget everything; sizes are taken from the frames."""
        self._forget()

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        """Take the next frame; results come when its clip is full.

        Raises:
            UsageError: a prompt was given.
            InputError: the size of the frames changes inside a clip.
        """
        if prompts:
            raise UsageError("the mask2former tracker takes no prompts: it finds objects automatically")
        sizes = fit_frame(frame.hw, self.options.size or trained_size(self.network), self.options.max_size)
        if self._frames and sizes != self._sizes:
            raise InputError(f"frame {frame.index} is {frame.hw[1]}x{frame.hw[0]}, the frames before it are not")
        self._sizes = sizes
        self._frames.append(shrink(frame.rgb, sizes))
        self._indices.append(frame.index)
        return self._flush() if len(self._frames) > self.lookahead else []

    def finish(self) -> list[Tracks]:
        """The frames that were held back, as a last clip."""
        return self._flush() if self._frames else []

    def state_dict(self) -> State:
        """The tracks and the frames that wait for their clip to fill."""
        state = prefixed("matcher.", self._matcher.state_dict())
        if self._frames:
            state["frames"] = torch.from_numpy(np.stack(self._frames))
            state["indices"] = torch.tensor(self._indices)
            state["height"], state["width"] = self._sizes.original
        return state

    def load_state_dict(self, state: State) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._forget()
        self._matcher.load_state_dict(nested("matcher.", state))
        if "frames" in state:
            original = int(state["height"]), int(state["width"])
            self._sizes = fit_frame(original, self.options.size or trained_size(self.network), self.options.max_size)
            self._frames = list(torch.as_tensor(state["frames"]).numpy())
            self._indices = torch.as_tensor(state["indices"]).tolist()

    def _forget(self) -> None:
        self._matcher = OnlineMatcher(self.options)
        self._frames, self._indices = [], []

    @torch.inference_mode()
    def _flush(self) -> list[Tracks]:
        frames, indices = self._frames, self._indices
        self._frames, self._indices = [], []
        queries, features = run_clip(self.network, frames, self._sizes, self.dtype)
        if self.options.mode == "offline":
            best = once_per_query(best_objects(queries, self.options.max_objects), self.options.min_score)
            logits = query_masks(queries, best.queries, features)
            ids = torch.arange(1, len(best.queries) + 1)
            return self._tracks(indices, ids, best.scores, best.labels, logits)
        scores = queries.class_logits.softmax(-1)[:, :-1].amax(-1)
        chosen = (scores >= min(self.options.keep_score, self.options.min_score)).nonzero()[:, 0]
        logits = query_masks(queries, chosen, features)
        inside = torch.stack([without_padding(x, self._sizes) for x in logits.unbind(1)], 1) > 0
        drawn = inside.flatten(1).any(1)
        chosen, logits, inside = chosen[drawn], logits[drawn], inside[drawn]
        match = self._matcher.step(
            indices[0],
            indices[-1],
            queries.class_logits[chosen],
            queries.embeddings[chosen],
            inside.flatten(1).cpu(),
        )
        return self._tracks(indices, match.ids, match.scores, match.labels, logits[match.rows.to(logits.device)])

    def _tracks(
        self, indices: Sequence[int], ids: Tensor, scores: Tensor, labels: Tensor, logits: Float[Tensor, "N T h w"]
    ) -> list[Tracks]:
        """One result per frame, of the objects that are visible on it."""
        names = [self._names[label] for label in labels.tolist()]
        results = []
        for t, index in enumerate(indices):
            boxes = np.array([self._box(one) for one in logits[:, t]], np.float32).reshape(-1, 4)
            seen = np.flatnonzero(boxes[:, 2] > boxes[:, 0])
            masks = without_padding(logits[:, t], self._sizes).sigmoid().float()
            results.append(
                Tracks(
                    index,
                    ids.cpu().numpy()[seen].astype(np.int64),
                    boxes[seen],
                    scores.cpu().numpy()[seen].astype(np.float32),
                    tuple(names[k] for k in seen),
                    masks[torch.from_numpy(seen).to(masks.device)],
                    exclusive=False,
                )
            )
        return results

    def _box(self, logits: Float[Tensor, "h w"]) -> np.ndarray:
        """Tight box of the object in pixels of the video; zeros when it is not there."""
        return mask_box((full_logits(logits[None], self._sizes)[0] > 0).cpu().numpy())
