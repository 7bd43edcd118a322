"""``run.json``: what a run is made of and how it stands; whether another run may go on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from vidseg import __version__
from vidseg.atomic_files import atomic_file
from vidseg.classes import ClassSet
from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg.runtime import Precision, choose_precision, computes_in, resolve_device
from vidseg.types import Prompt, VideoInfo
from vidseg_pipelines.run_inputs import files_of, fingerprint_of_prompt, weights_of
from vidseg_pipelines.segmenter import Segmenter

HANDLED = ("overlay_style", "keep_states", "snapshot_every", "max_pixels", "classes", "video_id")
"""Settings that do not affect the result, and that a run which goes on takes over."""
_SECTIONS = ("config", "input", "prompts", "weights")  # that decide the result


def new_manifest(config: RunConfig, video: VideoInfo, prompts: Sequence[Prompt] = ()) -> dict[str, Any]:
    """What ``run.json`` holds when a run begins. ``prompts`` are those that neither a setting nor a file holds."""
    info = {key: str(v) if isinstance(v, Fraction) else v for key, v in asdict(video).items()}
    files = files_of(config)
    given = {f"object {p.object_id} on frame {p.frame_index}": fingerprint_of_prompt(p) for p in prompts}
    del info["frame_names"], info["end"]  # the journal and the configuration have them
    return {
        "version": __version__,
        "status": "running",
        "input": files["input"],
        "prompts": files["prompts"] | given,
        "video": info | {"id": config.video_id},
        "config": config.content(),
        "config_sha256": config.digest(),
        "other_config": json.loads(json.dumps({name: getattr(config, name) for name in HANDLED}, default=str)),
        "weights": weights_of(config),
    }


def precision_of(config: RunConfig, device: torch.device, earlier: Mapping[str, Any] | None) -> Precision:
    """What a run computes in; ``auto`` is what the ``earlier`` run used that it goes on from, where it can be so here.

    What ``auto`` chooses on a CPU is measured, and a run that goes on has to give the same bytes.
    """
    chosen, used = choose_precision(config.dtype, device), (earlier or {}).get("used")
    if config.dtype != "auto" or not used or _kind(used) == _kind({"device": device, "dtype": chosen.name}):
        return chosen
    same_device = str(used["device"]).partition(":")[0] == device.type
    if not same_device or not computes_in(used["dtype"], device):
        return chosen
    return Precision(choose_precision(used["dtype"], device).dtype, "as in the frames before")


def for_models(config: RunConfig, earlier: Mapping[str, Any] | None) -> RunConfig:
    """``config`` for those who load models: with the precision of a run that goes on (:func:`precision_of`)."""
    if config.dtype != "auto" or not earlier:
        return config
    dtype = precision_of(config, resolve_device(config.device), earlier).name
    return replace(config, dtype=dtype)  # type: ignore[arg-type]


def record_models(
    manifest: dict[str, Any],
    config: RunConfig,
    segmenter: Segmenter,
    classes: ClassSet | None,
    earlier: Mapping[str, Any] | None,
) -> None:
    """Add what is known when the models are loaded: where they compute, their classes, and weights fetched just now."""
    detector, tracker = segmenter.finder.detector, segmenter.tracker
    numbers = classes.ids if classes else getattr(detector, "classes", None) or getattr(tracker, "classes", None)
    if numbers:
        manifest["classes"] = dict(numbers)
    device = segmenter.sam.device
    if not all(file["sha256"] for file in manifest["weights"].values()):
        manifest["weights"] = weights_of(config)
    precision = precision_of(config, device, earlier)
    manifest["used"] = {
        "device": str(device),
        "dtype": precision.name,
        "dtype_reason": precision.reason,
        "threads": torch.get_num_threads(),
    }


def record_earlier(manifest: dict[str, Any], earlier: Mapping[str, Any], keep: int, corrected: int | None) -> None:
    """Add what stays of the ``earlier`` run that goes on.

    Its results stay before the frame ``keep``; ``corrected`` is the first frame that what is said now changes, if any
    is: until the run has ended, later results in the journal may be those from before.
    """
    here = {"frame": keep, "used_before": earlier.get("used")}
    manifest["resumed"] = [*earlier.get("resumed", ()), here]
    if corrected is not None:
        manifest["recompute_from"] = corrected
    if "classes" in earlier:
        manifest.setdefault("classes", earlier["classes"])


def take_back(manifest: dict[str, Any], earlier: Mapping[str, Any] | None, corrected: int | None) -> None:
    """Bring a manifest back to what the ``earlier`` run had said, where it was to be ``corrected`` from a frame on."""
    if earlier is not None and corrected is not None:
        manifest.update({key: earlier[key] for key in ("config", "config_sha256", "prompts")})


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a run, or None when there is none.

    Raises:
        UsageError: the file is something else.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data["status"], str) or not all(isinstance(data[section], dict) for section in _SECTIONS):
            raise TypeError
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: not the manifest of a run; use --overwrite to start again") from error
    return data


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Replace the manifest of a run."""
    with atomic_file(path) as file:
        file.write((json.dumps(manifest, indent=2) + "\n").encode())


def check_same_run(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to continue ``old`` with other settings, another input or other weights.

    A setting that an earlier revision did not have yet counts as its default.

    Raises:
        UsageError: names the first differences, old and new.
    """
    found = differences({**old, "config": RunConfig().content() | old["config"]}, new)
    if found:
        raise UsageError(f"--resume: the run in the output folder was made differently ({found}); use --overwrite")


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys whose values are not the same, with both values; None: it has none."""
    return [(key, old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key)]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first three differences of two manifests that decide the result, or an empty text."""
    found = [
        f"{section}.{key}: {before!r} -> {now!r}"
        for section in _SECTIONS
        for key, before, now in differing(old.get(section, {}), new.get(section, {}))
    ]
    return "; ".join(found[:3])


def moves_of(manifest: Mapping[str, Any]) -> list[str]:
    """Where a run went on with another kind of device or number: its masks may differ in a few pixels."""
    now, moves = manifest["used"], []
    for place in manifest.get("resumed", ()):
        before = place["used_before"]
        if before and _kind(before) != _kind(now):
            moves.append(f"frames before {place['frame']} were made on {_kind(before)}, later ones on {_kind(now)}")
    return moves


def _kind(used: Mapping[str, Any]) -> str:
    """Kind of device and number that a run used: "cuda in bfloat16"."""
    return f"{str(used['device']).partition(':')[0]} in {used['dtype']}"
