"""Training scenes: a crop of a random image, warped, recoloured, now and then with other objects pasted on.

The whole geometry of a scene is one affine map, so that every pixel is resampled once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.datasets.pairs import Image, Mask, Sample
from vidseg.errors import UsageError

#: Grey of the canvas outside the image: near zero after normalisation, like the padding at inference.
CANVAS = 127
MIN_AREA = 48


@dataclass(frozen=True, slots=True)
class Scene:
    """RGB image (H, W, 3) and the soft masks (K, H, W), uint8, of its K >= 1 objects.

    ``fine``: the masks are good enough to teach outlines.
    """

    image: Image
    masks: npt.NDArray[np.uint8]
    fine: bool = True


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """How scenes are made. Lengths are pixels of the network's input."""

    image_side: float = 512.0
    """Long side that an image has at inference; scenes scatter around it by ``scale``."""
    scale: tuple[float, float] = (0.7, 1.6)
    max_zoom: float = 2.5
    """Images are enlarged at most by this factor."""
    sized: float = 0.3
    """Share of the scenes that are sized by an object instead of the image, like a crop around it at inference."""
    thin: float = 0.0
    """Images are drawn with a weight of (least share of its box that an object fills) ** -thin."""
    alike: float = 0.0
    """Share of the pasted objects that are copies of an object of the scene itself."""
    rotation: float = 8.0
    """Degrees, in a third of the scenes."""
    aspect: float = 1.15
    paste: float = 0.4
    """Probability of pasting one or two other objects."""
    colour: float = 0.7
    """Probability of a change of brightness, contrast and saturation."""


class SceneMaker:
    """Draws scenes from decoded samples; all randomness comes from the generator passed to :meth:`make`."""

    def __init__(
        self,
        samples: Mapping[str, Sequence[Sample]],
        weights: Mapping[str, float],
        cutouts: Sequence[tuple[Image, Mask]],
        config: SceneConfig,
        coarse: Collection[str] = (),
    ) -> None:
        """``samples`` and ``weights`` by source; sources of weight 0 are not drawn. ``cutouts`` are (RGB, alpha).

        Scenes of the sources ``coarse`` are not fine.
        """
        self.sources = sorted(s for s in samples if samples[s] and weights.get(s, 0) > 0)
        if not self.sources:
            raise UsageError(f"no training source has samples and a weight: have {sorted(samples)}, weights {weights}")
        share = np.array([weights[s] for s in self.sources], dtype=np.float64)
        self.shares = share / share.sum()
        self.samples = samples
        self.cutouts = cutouts
        self.config = config
        self.coarse = frozenset(coarse)
        self.odds = {}
        for source in self.sources if config.thin else ():
            odds = np.array([min(_fill(mask) for mask in s.masks) ** -config.thin for s in samples[source]])
            self.odds[source] = odds / odds.sum()

    def _draw(self, rng: np.random.Generator) -> tuple[Sample, str]:
        """A sample and its source."""
        source = self.sources[int(rng.choice(len(self.sources), p=self.shares))]
        pool = self.samples[source]
        return pool[int(rng.choice(len(pool), p=self.odds.get(source)))], source

    def make(self, rng: np.random.Generator, height: int, width: int) -> Scene:
        """One scene of the given size. Scenes that lost their object are drawn again."""
        for _ in range(100):
            sample, source = self._draw(rng)
            matrix = self._placement(rng, sample, height, width)
            image = cv2.warpAffine(
                sample.image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(CANVAS, CANVAS, CANVAS)
            ).astype(np.uint8, copy=False)
            masks = [_warp(mask, matrix, height, width) for mask in sample.masks]
            if rng.random() < self.config.paste:
                for _ in range(int(rng.integers(1, 3))):
                    masks = self._paste(rng, image, masks, sample)
            kept = [m for m in masks if np.count_nonzero(m > 128) >= MIN_AREA]
            if kept:
                if rng.random() < self.config.colour:
                    image = recolour(rng, image)
                return Scene(image, np.stack(kept), source not in self.coarse)
        raise UsageError("100 scenes in a row showed no object: the masks are empty or too small")

    def _placement(self, rng: np.random.Generator, sample: Sample, height: int, width: int) -> npt.NDArray[np.float64]:
        """Affine map from sample to canvas that keeps a part of one random object inside."""
        config = self.config
        mask = sample.masks[int(rng.integers(len(sample.masks)))]
        h, w = mask.shape
        ys, xs = np.nonzero(mask.max(axis=1) > 128)[0], np.nonzero(mask.max(axis=0) > 128)[0]
        box = (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1) if len(xs) else (0, 0, w, h)
        low, high = np.log(config.scale[0]), np.log(config.scale[1])
        zoom = config.image_side / max(h, w) * float(np.exp(rng.uniform(low, high)))
        if rng.random() < config.sized:
            extent = max((box[2] - box[0]) / width, (box[3] - box[1]) / height)
            zoom = rng.uniform(0.35, 0.95) / extent
        zoom = min(zoom, config.max_zoom)
        stretch = config.aspect ** rng.uniform(-0.5, 0.5)
        angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation)) if rng.random() < 0.33 else 0.0
        mirror = -1.0 if rng.random() < 0.5 else 1.0
        linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag(
            [mirror * zoom * stretch, zoom / stretch]
        )
        corners = np.array([[0, 0], [w, 0], [0, h], [w, h]]) @ linear.T
        centre = linear @ np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        offset = np.empty(2)
        for axis, size in enumerate((width, height)):
            near, far = corners[:, axis].min(), corners[:, axis].max()
            if far - near <= size:  # smaller than the canvas: anywhere, most often at the origin as at inference
                offset[axis] = -near + (0 if rng.random() < 0.6 else rng.uniform(0, size - far + near))
            else:
                wanted = rng.uniform(0.15, 0.85) * size - centre[axis]
                offset[axis] = np.clip(wanted, size - far, -near)
        return np.column_stack([linear, offset])

    def _paste(self, rng: np.random.Generator, image: Image, masks: list[Mask], sample: Sample) -> list[Mask]:
        """Put a cut-out, or an object of another sample or of ``sample``, over ``image`` (in place) and ``masks``."""
        height, width = image.shape[:2]
        if self.config.alike and rng.random() < self.config.alike:
            picture, alpha = sample.image, sample.masks[int(rng.integers(len(sample.masks)))]
        elif self.cutouts and rng.random() < 0.6:
            picture, alpha = self.cutouts[int(rng.integers(len(self.cutouts)))]
            picture = recolour(rng, picture)
        else:
            other, _ = self._draw(rng)
            picture, alpha = other.image, other.masks[int(rng.integers(len(other.masks)))]
        ys, xs = np.nonzero(alpha.max(axis=1) > 128)[0], np.nonzero(alpha.max(axis=0) > 128)[0]
        if not len(xs):
            return masks
        w, h = xs[-1] + 1 - xs[0], ys[-1] + 1 - ys[0]
        zoom = min(rng.uniform(0.2, 0.85) / max(w / width, h / height), self.config.max_zoom)
        mirror = -1.0 if rng.random() < 0.5 else 1.0
        centre = np.array([xs[0] + w / 2, ys[0] + h / 2])
        linear = np.diag([mirror * zoom, zoom])
        target = np.array([rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height])
        matrix = np.column_stack([linear, target - linear @ centre])
        flags = cv2.INTER_AREA if zoom < 0.6 else cv2.INTER_LINEAR
        warped = cv2.warpAffine(picture, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        cover = _warp(alpha, matrix, height, width)
        mix = cover[..., None].astype(np.uint16)
        image[:] = ((warped.astype(np.uint16) * mix + image * (255 - mix)) // 255).astype(np.uint8)
        left = 255 - cover.astype(np.uint16)
        return [(m * left // 255).astype(np.uint8) for m in masks] + [cover]


def _fill(mask: Mask) -> float:
    """Share of its box that an object fills, in (0, 1]; 1 for an empty mask."""
    inside = mask > 128
    ys, xs = np.nonzero(inside.any(axis=1))[0], np.nonzero(inside.any(axis=0))[0]
    return float(inside[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1].mean()) if len(xs) else 1.0


def _warp(mask: Mask, matrix: npt.NDArray[np.float64], height: int, width: int) -> Mask:
    return cv2.warpAffine(mask, matrix, (width, height), flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def recolour(rng: np.random.Generator, image: Image) -> Image:
    """Random gain, offset and gamma per image, a small gain per channel, sometimes grey or blurred."""
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.92, 1.08, 3)
    ramp = (np.arange(256) / 255.0) ** rng.uniform(0.75, 1.35)
    table = np.clip(ramp[:, None] * gain * 255 + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    out = cv2.LUT(image, table[None]).astype(np.uint8, copy=False)
    choice = rng.random()
    if choice < 0.06:
        out = np.repeat(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.uint8, copy=False)
    elif choice < 0.16:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 1.2)).astype(np.uint8, copy=False)
    elif choice < 0.3:
        saturation = rng.uniform(0.3, 1.6)
        grey = cv2.cvtColor(out, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
        out = np.clip(grey + saturation * (out - grey), 0, 255).astype(np.uint8)
    return out
