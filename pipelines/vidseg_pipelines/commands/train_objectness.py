"""`vidseg train objectness`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from vidseg.errors import UsageError

_IMAGES = {"coco": 60, "davis": 25, "video": 20, "ccp": 15, "synth": 15, "horse": 10}
"""Number of images per source."""


@dataclass(frozen=True)
class TrainObjectnessCommand:
    """Train the objectness score of a compact model; the rest of the file is unchanged."""

    data: Path
    """Folder with train/ and videos/, as for the other training stages of compact."""
    weights: Path
    """Model file (.safetensors)."""
    output: Path
    """File to write."""
    images: dict[str, int] = field(default_factory=lambda: dict(_IMAGES))
    """Number of images per source."""
    points_per_side: int = 7
    """Clicks along each side of an image."""
    decay: float = 3e-3
    """Weight of the L2 regularisation."""
    seed: int = 0

    def run(self) -> int:
        """Fit; 0 when done."""
        from vidseg.loading import load_sam
        from vidseg.sam.build import build_sam, save_sam
        from vidseg.sam.model import Sam
        from vidseg.training.objectness import draw_items, examples, fit_objectness, objects_of
        from vidseg.training.recipe import SceneData
        from vidseg.training.trainer import find_items

        sam = load_sam(self.weights)
        if not isinstance(sam, Sam):
            raise UsageError(f"{self.weights} is a SAM 2: objectness is learned for a SAM of the first generation")
        training, _ = find_items(SceneData(self.data, dict.fromkeys(self.images, 1.0), clip_stride=6))
        described, targets = [], []
        for item in draw_items(training, self.images, self.seed):
            features, overlaps = examples(sam, objects_of(item), self.points_per_side)
            if len(features):
                described.append(features)
                targets.append(overlaps)
        judge = fit_objectness(described, targets, self.decay)
        whole = build_sam(replace(sam.config, objectness=True))
        whole.load_state_dict({**sam.state_dict(), **{f"objectness.{k}": v for k, v in judge.state_dict().items()}})
        save_sam(whole, self.output, half=True)
        return 0
