"""The recipes as data: what `configs/training/*.yaml` may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vidseg.errors import UsageError
from vidseg.sam.config import SamConfig
from vidseg.sam2.config import Sam2Config
from vidseg.training.batches import PromptMix
from vidseg.training.scenes import SceneConfig
from vidseg.training.schedule import LoopConfig

Feature = Literal["decoder", "final", "early", "fusion"]
Part = Literal["hq", "sam", "decoder", "output-token"]


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """Low-rank additions to the queries and values of every attention of the encoder."""

    rank: int = 4

    def __post_init__(self) -> None:
        """Refuse a rank that adds nothing."""
        if self.rank < 1:
            raise UsageError(f"recipe: lora: rank {self.rank}: expected at least 1 (the paper's size: 4)")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Two bottlenecks in every block of the encoder."""

    width: int = 32

    def __post_init__(self) -> None:
        """Refuse a width that adds nothing."""
        if self.width < 1:
            raise UsageError(f"recipe: adapters: width {self.width}: expected at least 1 (the paper's size: 32)")


@dataclass(frozen=True, slots=True)
class SceneData:
    """Scenes of the compact model: images with masks, clips and cut-outs below one root."""

    root: Path
    weights: dict[str, float]
    """Share of every source (the part of a file name before the first underscore; `video` for clips)."""
    max_side: int = 640
    """Images are kept in memory at most this large."""
    clip_stride: int = 3
    cutouts: bool = True
    coarse: tuple[str, ...] = ()
    """Sources whose masks are too coarse to teach the HQ mask of a whole network its outlines."""
    held_out: int = 4
    """Percent of the still images that are kept for choosing."""


@dataclass(frozen=True, slots=True)
class FolderData:
    """HQSeg-44K and any folders of images with masks, cropped by large-scale jittering."""

    root: Path
    sets: tuple[str, ...] = ("dis5k", "thinobject", "fss", "duts-tr", "duts-te", "ecssd", "msra")
    """Training sets of HQSeg-44K by name, `sa1b` (SA-1B), or `IMAGES:MASKS`, two folders below the root (may be the
    same)."""
    sample: int = 0
    """Of `sa1b`: so many images, drawn at random with the loop's seed, each with one of its masks (0: all images)."""
    validation: tuple[str, ...] = ()
    """Validation sets: `dis5k-vd`, `coift`, `hrsod`, `thinobject-te`, or `IMAGES:MASKS`."""
    held_out: int = 0
    """Percent of the training images that are kept for validation, besides `validation`; at least one image."""
    scale: tuple[float, float] = (0.1, 2.0)
    """Range of large-scale jittering, relative to the size of the network's input."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run. Exactly one of ``scenes`` and ``folders`` says where the images come from."""

    network: SamConfig | Sam2Config | str
    """Sizes of the network, or the name of a model: of `configs/models`, or a published SAM 2 (`sam2.1-hiera-large`),
    whose HQ parts are trained."""
    loop: LoopConfig
    scenes: SceneData | None = None
    folders: FolderData | None = None
    start: Path | None = None
    """Weights to start from: any file or name that `--model` takes (not BASE+FILE); none means ImageNet
    weights for the trunk of the compact encoder."""
    scene: SceneConfig = field(default_factory=SceneConfig)
    prompt_mix: PromptMix = field(default_factory=PromptMix)
    images_per_batch: int = 4
    """Images per batch."""
    prompts: int = 6
    """Prompts per image (scenes only; folders have one)."""
    points: int = 12544
    """Points of the loss per mask."""
    shapes: tuple[tuple[int, int], ...] = ((352, 352),)
    """Heights and widths of the scenes, drawn evenly."""
    second_round_share: float = 0.0
    """Share of the steps with a second round on the first answer (base and whole)."""
    quality: float = 1.0
    """Weight of the predicted qualities (whole only)."""
    learn: tuple[Part, ...] = ("hq",)
    """What learns of the network (HQ stage): `hq`, the parts of HQ-SAM on a frozen SAM; or, of a plain SAM, `sam` (all
    of it), its `decoder`, its `output-token` with the MLP, or nothing (`[]`). What the recipe adds always learns. The
    network has an HQ branch if `hq` is here."""
    context_tokens: int = 0
    """Learnable tokens that are added to those of the mask decoder (the paper: 3)."""
    attend: bool = False
    """The HQ token attends to SAM's output tokens by scaled dot products before it draws."""
    pyramid: bool = False
    """A feature pyramid in the place of HQ-SAM's fusion."""
    lora: LoraConfig | None = None
    """LoRA in the attention of the encoder (`rank`): with `learn: []`, saved as a small file: `--model BASE+FILE`."""
    adapters: AdapterConfig | None = None
    """Adapters in the blocks of the encoder (`width`): with `learn: []`, saved as LoRA is."""
    boundary_only: bool = False
    """The loss sees only points within 1 % of the image side of the outline (HQ stage)."""
    whole: bool = False
    """All of SAM learns with the HQ parts (HQ only): its own loss beside theirs. Otherwise SAM is frozen, as in the
    paper."""
    ablate: tuple[Feature, ...] = ()
    """HQ features left out, for ablations (tables 2 and 3 of the paper); `fusion`: all, the HQ token reads SAM's mask
    feature as it is."""
    frozen: tuple[str, ...] = ()
    """Prefixes of parameter names that do not learn (base and whole)."""
    lr_factors: dict[str, float] = field(default_factory=dict)
    """Prefixes of parameter names with a factor on their learning rate."""
    unit: Literal["step", "epoch"] = "step"
    """What the loop's steps, milestone, save_every and validate_every count (epochs: folders only)."""
    autocast: Literal["none", "bfloat16"] = "none"
    threads: int = 0
    """Threads of PyTorch; 0 leaves its own choice."""
    workers: int = 0
    """Threads that make batches ahead of their steps: for a GPU; 0 = none."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if (self.scenes is None) == (self.folders is None):
            raise UsageError("recipe: give either 'scenes' or 'folders'")
        if self.unit == "epoch" and self.folders is None:
            raise UsageError("recipe: scenes are drawn without end and have no epochs; set unit to step")
        if "fusion" in self.ablate and len(self.ablate) > 1:
            raise UsageError("recipe: 'ablate: [fusion]' leaves all features out; name it alone")
        self._check_parts()
        if not self.shapes or any(side % 32 for shape in self.shapes for side in shape):
            raise UsageError(f"recipe: shapes {self.shapes}: sides must be multiples of 32")
        if self.images_per_batch < 1 or self.prompts < 1 or self.points < 4:
            counts = f"images_per_batch {self.images_per_batch}, prompts {self.prompts}, points {self.points}"
            raise UsageError(f"recipe: {counts} are too few")

    def _check_parts(self) -> None:
        if self.whole and self.learn != ("hq",):
            raise UsageError(f"recipe: 'whole' trains all of SAM and the HQ parts; leave out learn: {list(self.learn)}")
        if "hq" in self.learn and len(self.learn) > 1:
            raise UsageError("recipe: 'learn: [hq]' freezes SAM; name it alone, or use 'whole: true'")
        if "hq" not in self.learn and (self.ablate or self.attend or self.pyramid):
            raise UsageError(
                "recipe: 'ablate', 'attend' and 'pyramid' change the HQ branch, which only 'learn: [hq]' has"
            )
        if self.pyramid and self.ablate:
            raise UsageError("recipe: 'pyramid' takes the place of what 'ablate' leaves out; use one of them")
        if (self.lora or self.adapters) and self.learn:
            raise UsageError(f"recipe: lora and adapters need a frozen SAM: 'learn: []', not {list(self.learn)}")
        if self.context_tokens < 0:
            raise UsageError(f"recipe: context_tokens {self.context_tokens}: must not be negative")
        if not (self.learn or self.lora or self.adapters or self.context_tokens):
            raise UsageError("recipe: 'learn: []' needs something that is added: context_tokens, lora or adapters")
