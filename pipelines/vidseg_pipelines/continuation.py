"""Going on with the run in an output folder: one that was interrupted, or one of which something more is said.

What is said of a frame changes nothing before it. So a corrected run keeps its results before the correction, and
starts from the last state before it that is left: a snapshot, a state that was kept, or none, which is the first frame.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidseg.address import parse_address
from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg.files import is_pattern
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs.layout import EXPORTED
from vidseg.prompt_text import not_there, number_prompts, parse_prompts, read_masks
from vidseg.types import Prompt, VideoInfo
from vidseg_pipelines.made_of import SAID, MadeOf
from vidseg_pipelines.manifest import HANDLED, check_same_run, differing
from vidseg_pipelines.remote_folder import folder_at
from vidseg_pipelines.run_folder import FINISHED, RunFolder, frame_of, no_run
from vidseg_pipelines.snapshot import OtherRunError, Snapshot, UnusableSnapshotError, load_snapshot


@dataclass(frozen=True)
class Start:
    """Where a run begins."""

    next_frame: int
    """The first frame to compute."""
    keep: int
    """Results of the frames before this one are in the journal, and stay."""
    earlier: Mapping[str, Any] | None = None
    """The manifest of the run that goes on; None: it is a new one."""
    snapshot: Snapshot | None = None
    corrected: int | None = None
    """The first frame whose results in the journal are not those of all prompts; None: there is none."""
    redraw: bool = False
    """All outputs but the journal are made anew."""
    warnings: Sequence[str] = field(default=())


def settings_with(folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the run in a folder, as ``run.json`` has them, with those ``given`` to go on with it.

    Texts that say something of objects are added, everything else is replaced.

    Raises:
        UsageError: there is none, the page changed it, or its video is not there.
    """
    flag = "--continue" if given.get("continue_") else "--resume"
    manifest = folder_at(folder).read_manifest()
    if manifest is None:
        raise no_run(flag, folder)
    if manifest.get("edited"):
        raise UsageError(f"{flag}: {folder} was edited on the page: go on there with vidseg ui {folder}")
    handled = {name: value for name, value in manifest.get("other_config", {}).items() if name in HANDLED}
    settings = {**manifest["config"], **handled, "output": folder}
    for name, value in given.items():
        if name in SAID and name != "first_found_id":
            settings[name] = [*settings.get(name, ()), *([value] if isinstance(value, str) else value)]
        elif name != "input" or value:
            settings[name] = value
    address = parse_address(settings["input"])
    named = address.kind == "file" and not given.get("input") and not is_pattern(address.url)
    if named and not Path(address.url).exists():
        raise UsageError(f"{flag}: {folder} was made from {settings['input']}, which is not there: give VIDEO")
    return settings


def with_all_said(
    config: RunConfig, earlier: Mapping[str, Any], folder: RunFolder, video: VideoInfo, given: Sequence[Prompt]
) -> tuple[RunConfig, MadeOf]:
    """The settings of a run that is continued, with ids and frames in all prompts, and what it was made of before.

    New objects without an id get one that no object of the run has had.

    Raises:
        UsageError: other settings; prompts of the earlier run are missing; there is no such object to remove.
    """
    old = {name: earlier["config"].get(name) for name in SAID}
    _check_settings(earlier, config.content(), folder.path)
    first, _ = config.frame_range
    kept = [p for p in given if _key(p) in earlier["prompts"]]
    labelled, _ = labelled_objects(config, video)
    if lost := {key for key in earlier["prompts"] if key.startswith("object ")} - {_key(p) for p in kept}:
        raise UsageError(
            f"--continue: {min(lost)} was given as a Prompt object: give it again, with those that are new"
        )
    known = {p.object_id for p in [*kept, *labelled]}
    known |= {p.object_id for t in old["mask"] for p in read_masks(t, video, first)}
    numbered = number_prompts(old["box"], old["point"], known, first_frame=first)
    before = {flag: [t.whole for t in numbered if t.flag == flag] for flag in ("--box", "--point")}
    known |= {t.object_id for t in numbered}
    first_found = old["first_found_id"] or max(known, default=0) + 1
    seen = _first_frames(folder.results()) if folder.journal.exists() else {}
    taken = {*known, *seen, *RunConfig(remove=tuple(old["remove"] or ())).removals, *(p.object_id for p in given)}
    masks = tuple(text for text in config.mask if text not in old["mask"])
    taken |= {p.object_id for text in masks for p in read_masks(text, video, first)}
    boxes = [text for text in config.box if text not in old["box"]]
    points = [text for text in config.point if text not in old["point"]]
    repeated = {(t.flag, t.frame, t.body) for t in numbered}
    new = [
        typed
        for typed in number_prompts(boxes, points, taken, first_frame=first, first_free=max(taken, default=0) + 1)
        if typed.whole not in before[typed.flag]
        and (typed.text.partition(":")[0].count("@") or (typed.flag, typed.frame, typed.body) not in repeated)
    ]
    for object_id, frame in config.removals.items():
        if object_id not in {t.object_id for t in [*numbered, *new]} | known and seen.get(object_id, frame) >= frame:
            raise not_there(object_id, frame, (i for i, at in seen.items() if at < frame))
    said = MadeOf(
        earlier,
        parse_prompts(
            boxes=before["--box"],
            points=before["--point"],
            masks=old["mask"],
            prompts=[*kept, *labelled],
            video=video,
            first_frame=first,
            first_found_id=first_found,
        ),
        RunConfig(remove=tuple(old["remove"] or ())).removals,
    )
    config = replace(
        config,
        box=(*before["--box"], *(t.whole for t in new if t.flag == "--box")),
        point=(*before["--point"], *(t.whole for t in new if t.flag == "--point")),
        mask=(*old["mask"], *masks),
        label=tuple(f"{i}={name}" for i, name in config.names.items()),
        first_found_id=first_found,
    )
    return config, said


def labelled_objects(config: RunConfig, video: VideoInfo) -> tuple[list[Prompt], list[str]]:
    """The prompts of ``--from``, and notes on how they were read (InputError: they cannot be)."""
    if config.from_ is None:
        return [], []
    from vidseg.annotations import read_annotations

    return read_annotations(*config.from_, video, config.frame_range)


def with_all_exports(config: RunConfig, folder: RunFolder) -> RunConfig:
    """The settings, with every format that the folder holds: none of them is left as it was before the correction."""
    there = [name for name, file in EXPORTED.items() if (folder.path / file).exists()]
    return replace(config, save=",".join(dict.fromkeys([*config.saves, *there])) or "none")


def start_of(
    config: RunConfig, folder: RunFolder, earlier: Mapping[str, Any] | None, made_of: MadeOf, said: MadeOf | None
) -> Start:
    """Where the run of ``made_of`` begins; ``said``: what it was made of before it was continued.

    Raises:
        UsageError: another input or other weights; a snapshot that cannot be used, where no other state could be.
        InputError: the journal is damaged.
    """
    first = config.frame_range[0]
    if earlier is None:
        return Start(first, first)
    if said is None:
        check_same_run(earlier, made_of.manifest)
    else:
        _check_files(earlier, made_of.manifest, folder.path)
    made_of = made_of.in_files_of(earlier)
    corrected = None if said is None else said.first_difference(made_of)
    changed = [frame for frame in (corrected, earlier.get("recompute_from")) if frame is not None]
    if said is None and not changed and folder.snapshot.exists():  # no other state is later
        snapshot = folder.load_snapshot(made_of)
        assert snapshot is not None
        return Start(snapshot.next_frame, snapshot.next_frame, earlier, snapshot)
    end = (
        max((masks.frame_index + 1 for masks in folder.results()), default=first) if folder.journal.exists() else first
    )
    recompute = min(changed, default=None)
    if said is not None and recompute is None and earlier["status"] in FINISHED:
        return Start(end, end, earlier, redraw=True)
    latest = min(end, corrected if corrected is not None else sys.maxsize)
    snapshot, warnings = _last_state(folder, made_of, latest)
    next_frame = first if snapshot is None else snapshot.next_frame
    if said is None and recompute is None:
        return Start(next_frame, next_frame, earlier, snapshot, warnings=warnings)
    keep = max(next_frame, min(end, recompute if recompute is not None else end))
    return Start(next_frame, keep, earlier, snapshot, recompute, True, warnings)


def _last_state(folder: RunFolder, made_of: MadeOf, latest: int) -> tuple[Snapshot | None, list[str]]:
    """The last state before the frame ``latest``, and why others are not used."""
    found, warnings = list[Snapshot](), list[str]()
    kept = (path for path in folder.kept_states() if frame_of(path) <= latest)
    for path in [folder.snapshot, *kept]:
        try:
            snapshot = load_snapshot(path, made_of)
        except OtherRunError:
            continue
        except UnusableSnapshotError as error:
            warnings.append(f"{path.relative_to(folder.path)} was not used: {error.why}")
            continue
        if snapshot is not None and snapshot.next_frame <= latest:
            found.append(snapshot)
            if path != folder.snapshot:
                break
    return max(found, key=lambda one: one.next_frame, default=None), warnings


def _check_settings(earlier: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> None:
    """Refuse to continue a run with other settings than those that it was made with (UsageError)."""
    for key, before, now in differing(RunConfig().content() | earlier["config"], settings):
        if key not in (*SAID, "save", "input"):
            flag = f"--{key.strip('_').replace('_', '-')}"
            raise UsageError(
                f"--continue: {flag} {now}: the run in {folder} was made with {before}; leave it out, or use another"
                " --output"
            )


def _check_files(earlier: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path) -> None:
    """Refuse to continue a run that was made of other files (UsageError)."""
    old, new = earlier["input"], manifest["input"]
    contents = [{key: value for key, value in one.items() if key != "path"} or one for one in (old, new)]
    if contents[0] != contents[1]:
        what = "is another video" if old["path"] != new["path"] else "has changed"
        raise UsageError(f"--continue: {new['path']} {what}: the run in {folder} was made from {old['path']}")
    for section, what in (("prompts", "a prompt"), ("weights", "the file of weights")):
        for key, before, now in differing(earlier[section], manifest[section]):
            if before is not None and now != before:
                raise UsageError(f"--continue: {what} {key} has changed since the run in {folder} was made")


def _first_frames(results: Iterator[FrameMasks]) -> dict[int, int]:
    """Object id to the first frame that shows it."""
    seen: dict[int, int] = {}
    for masks in results:
        for object_id in masks.ids:
            seen.setdefault(object_id, masks.frame_index)
    return seen


def _key(prompt: Prompt) -> str:
    return f"object {prompt.object_id} on frame {prompt.frame_index}"
