"""Grounding DINO and OWLv2 through Hugging Face transformers, behind one face: an image in, boxes of phrases out.

transformers is an extra of vidseg and is imported when a network is loaded. Pickled weights are never read, code of a
model's own is never run.
"""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidseg.errors import UsageError, WeightsError
from vidseg_trackers.open_vocabulary.options import TextOptions

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt")
"""Files of which one must be there: without them transformers makes an empty tokenizer."""


class Found(NamedTuple):
    """Boxes (n, 4) float32, XYXY in pixels; scores (n,) in 0..1; phrases (n,): which phrase, -1: none."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    phrases: npt.NDArray[np.int64]


class PhraseDetector(Protocol):
    """A network that looks for given phrases."""

    box_threshold: float

    def find(self, image: npt.NDArray[np.uint8]) -> Found:
        """All that the network says about an image (H, W, 3), RGB."""
        ...


class _Parts(NamedTuple):
    """A model in evaluation mode, its tokenizer and what prepares images for it."""

    model: Any
    tokenizer: Any
    prepare: Any


class GroundingDino:
    """Grounding DINO (Liu et al., ECCV 2024): one caption of all phrases; a box has the one it fits best."""

    def __init__(self, parts: _Parts, options: TextOptions, device: torch.device) -> None:
        """The caption is read once.

        Raises:
            UsageError: it is longer than the model reads.
        """
        self.model, self.prepare, self.device = parts.model, parts.prepare, device
        self.box_threshold = 0.35 if options.box_threshold is None else options.box_threshold
        self.text_threshold = 0.25 if options.text_threshold is None else options.text_threshold
        phrases = [phrase.lower() for phrase in options.phrases]
        tokens = parts.tokenizer(
            " ".join(f"{phrase}." for phrase in phrases), return_tensors="pt", return_offsets_mapping=True
        )
        self.members = _members(phrases, tokens.pop("offset_mapping")[0].tolist())
        self.tokens = {name: value.to(device) for name, value in tokens.items()}
        _check_length("--text", tokens["input_ids"].shape[1], parts.model.config.max_text_len)

    @torch.inference_mode()
    def find(self, image: npt.NDArray[np.uint8]) -> Found:
        """See :class:`PhraseDetector`."""
        picture = {name: value.to(self.device) for name, value in _prepared(self.prepare, image).items()}
        answer = self.model(**picture, **self.tokens)
        scores = answer.logits[0, :, : self.members.shape[1]].float().sigmoid().cpu()
        height, width = image.shape[:2]
        names = name_boxes(scores, self.members, self.text_threshold)
        best = scores[:, self.members.any(0)].amax(1)  # of the words, not of what separates phrases
        return Found(_corners(answer.pred_boxes[0], width, height), best.numpy(), names.numpy())


class Owl:
    """OWLv2 (Minderer et al., NeurIPS 2023): a score for every phrase at every patch of the image, padded square."""

    def __init__(self, parts: _Parts, options: TextOptions, device: torch.device) -> None:
        """The phrases are read once.

        Raises:
            UsageError: one is longer than the model reads, or ``text_threshold`` is given.
        """
        if options.text_threshold is not None:
            raise UsageError("detector option text_threshold is for Grounding DINO; OWLv2 has box_threshold alone")
        self.model, self.prepare, self.device = parts.model, parts.prepare, device
        self.box_threshold = 0.1 if options.box_threshold is None else options.box_threshold
        texts = [f"a photo of a {phrase.lower()}" for phrase in options.phrases]
        limit = parts.model.config.text_config.max_position_embeddings
        for phrase, ids in zip(options.phrases, parts.tokenizer(texts)["input_ids"], strict=True):
            _check_length(f"--text: {phrase!r}", len(ids), limit)
        tokens = parts.tokenizer(texts, padding="max_length", max_length=limit, return_tensors="pt")
        self.tokens = {name: tokens[name].to(device) for name in ("input_ids", "attention_mask")}

    @torch.inference_mode()
    def find(self, image: npt.NDArray[np.uint8]) -> Found:
        """See :class:`PhraseDetector`."""
        pixels = _prepared(self.prepare, image)["pixel_values"].to(self.device)
        answer = self.model(pixel_values=pixels, **self.tokens)
        scores, phrases = answer.logits[0].float().sigmoid().cpu().max(1)
        side = max(image.shape[:2])
        return Found(_corners(answer.pred_boxes[0], side, side), scores.numpy(), phrases.numpy())


_NETWORKS: dict[str, type[GroundingDino] | type[Owl]] = {
    "grounding-dino": GroundingDino,
    "mm-grounding-dino": GroundingDino,
    "owlv2": Owl,
}


def load_network(options: TextOptions, *, device: torch.device, offline: bool) -> PhraseDetector:
    """The network of ``options.model``, from a local folder, from what was fetched before, or from the Hub.

    Raises:
        UsageError: transformers is missing, or the text does not fit the model.
        WeightsError: the model is not here and cannot be fetched, is damaged, or is no such detector.
    """
    try:
        import transformers
    except ImportError as error:
        raise UsageError("--detect-with text needs the package transformers: pip install 'vidseg[hf]'") from error
    name = options.model
    is_folder = Path(name).is_dir()
    if not is_folder and not _HUB_NAME.fullmatch(name):
        raise WeightsError(f"detector model {name}: no such folder, and no name of the Hugging Face Hub (OWNER/NAME)")
    if is_folder and not any((Path(name) / file).is_file() for file in _TOKENIZERS):
        raise WeightsError(f"detector model {name}: the folder has no tokenizer ({' or '.join(_TOKENIZERS)})")
    try:
        parts = _read(transformers, name, local=True)
    except WeightsError as error:
        if is_folder:
            raise
        if offline:
            raise WeightsError(
                f"detector model {name} is not on this machine and --offline fetches nothing: run once without it,"
                " or name a folder with the model's files (--detector-option model=FOLDER)"
            ) from error
        parts = _read(transformers, name, local=False)
    return _NETWORKS[parts.model.config.model_type](parts, options, device)


def _read(transformers: Any, name: str, *, local: bool) -> _Parts:
    where: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    try:
        with _quiet(transformers, local):
            config = transformers.AutoConfig.from_pretrained(name, **where)
            if config.model_type not in _NETWORKS:
                raise WeightsError(
                    f"detector model {name}: it is of the kind {config.model_type!r}; Grounding DINO or OWLv2 expected"
                )
            model, loading = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(
                name, config=config, use_safetensors=True, output_loading_info=True, **where
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(name, **where)
            prepare = transformers.AutoImageProcessor.from_pretrained(name, backend="pil", **where)
    except WeightsError:
        raise
    except Exception as error:  # transformers, safetensors, tokenizers and the Hub have errors of many kinds
        text = " ".join(str(error).split()) or type(error).__name__
        text = textwrap.shorten(text, 200, placeholder=" ...")
        raise WeightsError(f"detector model {name}: cannot be loaded: {text}") from error
    lacking = sorted({*loading["missing_keys"], *(str(key) for key in loading["mismatched_keys"])})
    if lacking:
        raise WeightsError(f"detector model {name}: its weights do not fit its config.json: {lacking[0]} is missing")
    return _Parts(model.eval(), tokenizer, prepare)


@contextlib.contextmanager
def _quiet(transformers: Any, local: bool) -> Iterator[None]:
    """No bars and warnings of transformers while files are read; a download shows its progress."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    if local:
        log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def name_boxes(scores: Tensor, members: Tensor, threshold: float) -> Tensor:
    """The phrase of every box: of those with a token over ``threshold`` the one with the best mean; -1: none.

    Args:
        scores: of boxes and tokens (n, T), in 0..1.
        members: which tokens each phrase has, bool (P, T).
        threshold: in 0..1.
    """
    inside = members.to(scores.dtype)
    means = scores @ inside.T / inside.sum(1).clamp(min=1)
    best = (scores[:, None] * inside).amax(-1)
    means = torch.where(best > threshold, means, torch.full_like(means, -1))
    value, phrase = means.max(1)
    return torch.where(value >= 0, phrase, -1)


def _members(phrases: Sequence[str], offsets: Sequence[Sequence[int]]) -> Tensor:
    """Which tokens belong to which phrase of the caption, by their places in it: bool (P, T)."""
    members = torch.zeros(len(phrases), len(offsets), dtype=torch.bool)
    start = 0
    for row, phrase in enumerate(phrases):
        for column, (first, end) in enumerate(offsets):
            members[row, column] = start <= first < end <= start + len(phrase)
        start += len(phrase) + 2  # the full stop and the space
    return members


def _check_length(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise UsageError(f"{what}: {count} tokens are more than the {limit} that the model reads; use fewer words")


def _prepared(prepare: Any, image: npt.NDArray[np.uint8]) -> dict[str, Tensor]:
    return dict(prepare(images=image, input_data_format="channels_last", return_tensors="pt"))


def _corners(boxes: Tensor, width: int, height: int) -> npt.NDArray[np.float32]:
    """Relative boxes (n, 4), centre and size, as XYXY in pixels."""
    middle, half = boxes[:, :2].float(), boxes[:, 2:].float() / 2
    corners = torch.cat([middle - half, middle + half], 1) * torch.tensor([width, height] * 2, device=boxes.device)
    return np.asarray(corners.cpu().numpy(), np.float32)
