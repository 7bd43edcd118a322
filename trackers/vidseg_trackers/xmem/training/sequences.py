"""Short training sequences for a tracker: frames and labels, made from stills, clips and pasted sprites.

A sequence is a base layer (a still under a random camera path, or real consecutive frames of a clip) with up to two
sprites pasted over it, each on its path, which may lead away and back. A sprite is an object with its number, or an
unlabelled distractor, possibly a copy of an object that must be told apart. Objects are what frame 0 shows; they may
leave or be hidden later.
(XMem, ECCV 2022, section 4.1 and appendix: pre-training on sequences deformed from static images.)
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.errors import UsageError
from vidseg_trackers.xmem.training.bank import U8, Bank

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SequenceOptions:
    """How sequences are made."""

    size: int = 256
    """Side of the square frames in pixels."""
    length: int = 3
    """Frames per sequence."""
    clip_fraction: float = 0.0
    """Share of sequences whose base layer is a clip."""
    max_skip: int = 3
    """Largest step between two frames taken from a clip."""
    motion: float = 1.0
    """Factor on how far cameras and sprites move between two frames."""
    distractors: float = 0.4
    """Chance of an unlabelled sprite that may hide objects, often a copy of one of them."""
    leave: float = 0.0
    """Chance of a camera or a sprite to go far away and come back: objects leave the frame and return."""

    def __post_init__(self) -> None:
        """Refuse what cannot make a sequence."""
        if self.size < 32 or self.size % 16:
            raise UsageError(f"size {self.size}: expected a multiple of 16, at least 32")
        if self.length < 2 or self.max_skip < 1:
            raise UsageError(f"length {self.length} and max_skip {self.max_skip}: expected at least 2 and 1")


@dataclass(frozen=True)
class Sequence:
    """Frames uint8 (T, S, S, 3), labels uint8 (T, S, S) in 0..``objects``; frame 0 shows every object."""

    frames: U8
    labels: U8
    objects: int


def make_sequence(bank: Bank, options: SequenceOptions, objects: int, rng: np.random.Generator) -> Sequence:
    """One random sequence of exactly ``objects`` objects; the same arguments and generator state give the same one."""
    while True:
        if bank.clips and rng.random() < options.clip_fraction:
            frames, labels = _clip_layer(bank, options, rng)
        else:
            frames, labels = _still_layer(bank, options, rng)
        missing = objects - int(np.count_nonzero(np.bincount(labels[0].ravel())[1:]))
        for _ in range(max(0, missing)):
            _paste_sprite(bank, frames, labels, options, rng, number=int(labels.max()) + 1)
        if rng.random() < options.distractors:
            _paste_sprite(bank, frames, labels, options, rng, number=0)
        if _relabel(labels, objects, options.size, rng):
            break
    if rng.random() < 0.5:
        frames, labels = frames[:, :, ::-1], labels[:, :, ::-1]
    return Sequence(_photometric(np.ascontiguousarray(frames), rng), np.ascontiguousarray(labels), objects)


@dataclass(frozen=True)
class _Path:
    """Affine output->source maps, one per frame (T, 2, 3), and smooth displacements (T, 4, 4, 2) in source pixels."""

    affine: F32
    bend: F32


def _path(
    centre: tuple[float, float], scale: float, options: SequenceOptions, rng: np.random.Generator, *, still: float
) -> _Path:
    """A random smooth path: ``centre`` and ``scale`` (source pixels per output pixel) at frame 0, drifting from there.

    ``still`` in 0..1 is the chance of hardly moving at all.
    """
    length, size = options.length, options.size
    calm = 0.1 if rng.random() < still else float(rng.uniform(0.3, 1.0))
    amount = options.motion * calm
    step = rng.normal(0, 1, 6) * (0.06, 0.06, 0.05, 0.07, 0.03, 0.03) * amount
    jitter = rng.normal(0, 1, (length, 6)) * (0.02, 0.02, 0.02, 0.03, 0.02, 0.02) * amount
    drift = np.arange(length)[:, None] * step + jitter
    if options.leave and rng.random() < options.leave:
        angle = rng.uniform(0, 2 * np.pi)
        away = rng.uniform(0.5, 1.1) * np.array((np.cos(angle), np.sin(angle)))
        drift[:, :2] += away * np.sin(np.pi * np.arange(length) / (length - 1))[:, None] ** 2
    start = rng.normal(0, 1, 4) * (0.15, 0.05, 0.08, 0.08)
    affine = np.empty((length, 2, 3), np.float32)
    for t in range(length):
        dx, dy, log_scale, turn, shear, aspect = drift[t]
        turn, shear, aspect = turn + start[0], shear + start[1], aspect + start[2]
        zoom = scale * np.exp(log_scale)
        rotation = np.array(((np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))))
        linear = zoom * rotation @ np.array(((np.exp(aspect), shear), (0.0, np.exp(-aspect))))
        middle = np.array(centre) + scale * size * np.array((dx, dy))
        affine[t, :, :2] = linear
        affine[t, :, 2] = middle - linear @ np.array((size / 2, size / 2))
    bend = np.zeros((length, 4, 4, 2), np.float32)
    if rng.random() < 0.6:
        amplitude = scale * size * 0.025 * amount
        bend += rng.normal(0, amplitude, (1, 4, 4, 2)) + np.cumsum(
            rng.normal(0, amplitude, (length, 4, 4, 2)), axis=0, dtype=np.float64
        )
    return _Path(affine, bend.astype(np.float32))


def _maps(path: _Path, t: int, size: int) -> tuple[F32, F32]:
    """Source coordinates of every output pixel of frame ``t``."""
    grid = np.arange(size, dtype=np.float32)
    a = path.affine[t]
    x = a[0, 0] * grid[None, :] + a[0, 1] * grid[:, None] + a[0, 2]
    y = a[1, 0] * grid[None, :] + a[1, 1] * grid[:, None] + a[1, 2]
    if path.bend[t].any():
        bend = cv2.resize(path.bend[t], (size, size), interpolation=cv2.INTER_CUBIC)
        x, y = x + bend[..., 0], y + bend[..., 1]
    return x, y


def _mask_extent(mask: U8) -> tuple[float, float, float, float]:
    """Centre x, centre y, width and height of a mask that is not empty."""
    x, y, w, h = cv2.boundingRect(mask)
    return x + w / 2, y + h / 2, float(w), float(h)


def _aim(mask: U8, size: int, rng: np.random.Generator) -> tuple[tuple[float, float], float]:
    """Centre and scale of a crop inside the image that shows ``mask`` at some size, whole where it fits."""
    height, width = mask.shape
    cx, cy, w, h = _mask_extent(mask)
    largest = float(min(height, width))
    smallest = min(largest, max(1.1 * max(w, h), 0.35 * largest))
    side = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
    room = max(0.0, (side - max(w, h)) / 2) + 0.1 * side
    cx, cy = cx + float(rng.uniform(-room, room)), cy + float(rng.uniform(-room, room))
    return (
        float(np.clip(cx, side / 2, width - side / 2)),
        float(np.clip(cy, side / 2, height - side / 2)),
    ), side / size


def _still_layer(bank: Bank, options: SequenceOptions, rng: np.random.Generator) -> tuple[U8, U8]:
    """A still under a camera path, with one or two of its objects labelled."""
    still = bank.stills[int(rng.choice(len(bank.stills), p=bank.weights))]
    count = min(len(still.masks), 1 if rng.random() < 0.65 else 2)
    chosen = still.masks[rng.permutation(len(still.masks))[:count]]
    chosen = chosen[np.argsort(-chosen.sum((1, 2)), kind="stable")]
    labels = np.zeros(still.rgb.shape[:2], np.uint8)
    for number, mask in enumerate(chosen, start=1):
        labels[mask > 0] = number
    centre, scale = _aim(chosen[0], options.size, rng)
    path = _path(centre, scale, options, rng, still=0.1)
    source = _shrunk(still.rgb, scale)
    frames = np.empty((options.length, options.size, options.size, 3), np.uint8)
    out = np.empty((options.length, options.size, options.size), np.uint8)
    for t in range(options.length):
        x, y = _maps(path, t, options.size)
        frames[t] = cv2.remap(source, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        out[t] = cv2.remap(labels, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return frames, out


def _shrunk(rgb: U8, scale: float) -> U8:
    """Blur before sampling coarser than the source, so that shrinking does not alias."""
    if scale <= 1.4:
        return rgb
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), 0.4 * scale), np.uint8)


def _clip_layer(bank: Bank, options: SequenceOptions, rng: np.random.Generator) -> tuple[U8, U8]:
    """Frames of a clip (forwards or backwards, with skips) under a calm crop path that starts at one object."""
    clip = bank.clips[int(rng.integers(len(bank.clips)))]
    skip = int(rng.integers(1, min(options.max_skip, (len(clip.frames) - 1) // (options.length - 1)) + 1))
    first = int(rng.integers(len(clip.frames) - skip * (options.length - 1)))
    indices = first + skip * np.arange(options.length)
    if rng.random() < 0.5:
        indices = indices[::-1]
    present = [int(i) for i in np.unique(clip.labels[indices[0]]) if i]
    mask = (clip.labels[indices[0]] == rng.choice(present)) if present else np.ones(clip.labels.shape[1:], bool)
    centre, scale = _aim(mask.astype(np.uint8), options.size, rng)
    path = _path(centre, scale, options, rng, still=0.7)
    if rng.random() < 0.7:
        path = _Path(np.repeat(path.affine[:1], options.length, axis=0), np.zeros_like(path.bend))
    frames = np.empty((options.length, options.size, options.size, 3), np.uint8)
    labels = np.empty((options.length, options.size, options.size), np.uint8)
    for t, index in enumerate(indices):
        x, y = _maps(path, t, options.size)
        rgb = _shrunk(clip.frames[index], scale)
        frames[t] = cv2.remap(rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        labels[t] = cv2.remap(clip.labels[index], x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return frames, labels


def _paste_sprite(
    bank: Bank, frames: U8, labels: U8, options: SequenceOptions, rng: np.random.Generator, *, number: int
) -> None:
    """Paste one sprite over the layers in place: the new object ``number``, or an unlabelled distractor (0)."""
    size = options.size
    rgba = _pick_sprite(bank, frames, labels, rng)
    height, width = rgba.shape[:2]
    scale = max(height, width) / (size * float(np.exp(rng.uniform(np.log(0.12), np.log(0.7)))))
    aim = rng.uniform(0.1, 0.9, 2) * size
    centre = (width / 2 + (size / 2 - aim[0]) * scale, height / 2 + (size / 2 - aim[1]) * scale)
    path = _path(centre, scale, options, rng, still=0.15)
    source = _shrunk(rgba, scale)
    for t in range(options.length):
        x, y = _maps(path, t, size)
        sprite = cv2.remap(source, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0))
        alpha = sprite[..., 3:].astype(np.float32) * (1 / 255)
        frames[t] = (frames[t] * (1 - alpha) + sprite[..., :3] * alpha).astype(np.uint8)
        labels[t][alpha[..., 0] > 0.5] = number


def _pick_sprite(bank: Bank, frames: U8, labels: U8, rng: np.random.Generator) -> U8:
    """An RGBA sprite: a cutout, an object of another still, or a copy of an object on frame 0 (a look-alike)."""
    draw = rng.random()
    if draw < 0.3 and bank.sprites:
        return bank.sprites[int(rng.integers(len(bank.sprites)))]
    if draw < 0.5 and labels[0].any():
        present = [int(i) for i in np.unique(labels[0]) if i]
        return _cut(frames[0], (labels[0] == int(rng.choice(present))).astype(np.uint8))
    still = bank.stills[int(rng.choice(len(bank.stills), p=bank.weights))]
    return _cut(still.rgb, still.masks[int(rng.integers(len(still.masks)))])


def _cut(rgb: U8, mask: U8) -> U8:
    """The object under ``mask`` as RGBA, cropped with a transparent rim; edges are softened by about one pixel."""
    x, y, w, h = cv2.boundingRect(mask)
    inside = slice(y, y + h), slice(x, x + w)
    alpha = cv2.copyMakeBorder(mask[inside] * np.uint8(255), 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(0,))
    colour = cv2.copyMakeBorder(rgb[inside], 2, 2, 2, 2, cv2.BORDER_REPLICATE)
    return np.dstack((colour, cv2.GaussianBlur(alpha, (3, 3), 0)))


def _relabel(labels: U8, objects: int, size: int, rng: np.random.Generator) -> bool:
    """Number ``objects`` of the objects of frame 0 from 1 in place, in random order; the rest becomes background.

    False, and nothing changed, when frame 0 shows fewer.
    """
    areas = np.bincount(labels[0].ravel(), minlength=256)
    found = [i for i in range(1, 256) if areas[i] >= max(16, size * size // 1000)]
    if len(found) < objects:
        return False
    table = np.zeros(256, np.uint8)
    table[rng.permutation(found)[:objects]] = np.arange(1, objects + 1)
    labels[:] = table[labels]
    return True


def _photometric(frames: U8, rng: np.random.Generator) -> U8:
    """Colour, blur and noise: one strong change for the whole sequence and a mild one per frame."""
    length = len(frames)
    mix = np.eye(3)
    if rng.random() < 0.7:
        grey = np.full((3, 3), (0.299, 0.587, 0.114))
        mix = grey + float(rng.uniform(0.3, 1.4)) * (np.eye(3) - grey)
        mix = np.diag(rng.uniform(0.85, 1.15, 3)) @ mix
    if rng.random() < 0.05:
        mix = np.full((3, 3), 1 / 3)
    gain = float(np.exp(rng.normal(0, 0.15)))
    gains = gain * np.exp(rng.normal(0, 0.04, length))
    shifts = rng.normal(0, 8) + rng.normal(0, 4, length)
    out = np.empty_like(frames)
    blur = float(rng.uniform(0.4, 1.6)) if rng.random() < 0.2 else 0.0
    noise = float(rng.uniform(1, 8)) if rng.random() < 0.25 else 0.0
    for t in range(length):
        picture = cv2.transform(frames[t], mix * gains[t], dst=None)
        picture = np.clip(picture.astype(np.float32) + np.float32(shifts[t]), 0, 255)
        if blur:
            picture = cv2.GaussianBlur(picture, (0, 0), blur * float(rng.uniform(0.5, 1.0)))
        if noise:
            picture = np.clip(picture + rng.standard_normal(picture.shape, np.float32) * noise, 0, 255)
        out[t] = picture.astype(np.uint8)
    return out
