"""Folders of label maps: PNG files (.png, .PNG) whose pixel value is the object id, one folder per sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidseg.errors import InputError, UsageError, did_you_mean
from vidseg.files import counts, data_files, data_folders
from vidseg.text import read_text

_PNG = (".png",)


def same_split(split: str) -> tuple[str, ...]:
    """The names that data sets give the folder of a split: the validation set has three."""
    return ("valid", "val", "validation") if split in ("val", "valid", "validation") else (split,)


@dataclass(frozen=True, slots=True)
class TruthFolder:
    """Where a ground truth stands.

    ``layout`` says how it was found, ``root`` holds its parts, ``folders`` maps each sequence to its folder.
    """

    layout: str
    root: Path
    folders: dict[str, Path]


def frame_folder(folder: Path) -> Path:
    """The folder that holds the PNG files of a sequence: ``folder/masks`` if there are any, else ``folder``."""
    masks = folder / "masks"
    return masks if masks.is_dir() and data_files(masks, _PNG) else folder


def frame_files(folder: Path) -> list[Path]:
    """The PNG files of a sequence in order of their names.

    Raises:
        InputError: there are none, or two of one name.
    """
    files = _by_stem(frame_folder(folder))
    if not files:
        raise InputError(f"{folder}: no PNG files (neither there nor in its folder masks/)")
    return list(files.values())


def _by_stem(folder: Path) -> dict[str, Path]:
    """The PNG files of a folder by their names without the suffix, whatever its case."""
    files: dict[str, Path] = {}
    for path in data_files(folder, _PNG):
        if path.stem in files:
            raise InputError(f"{folder}: {files[path.stem].name} and {path.name} are files of the same frame")
        files[path.stem] = path
    return files


def predicted_files(truth: Sequence[Path], folder: Path) -> list[Path]:
    """The predicted file of every ground-truth file, by name.

    Raises:
        InputError: the folder or a frame is missing.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no predictions for this sequence: expected a folder of PNG files named like its frames"
        )
    there = frame_folder(folder)
    present = _by_stem(there)
    missing = [path.name for path in truth if path.stem not in present]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(f"{there}: {len(missing)} of {len(truth)} evaluated frames have no prediction: {shown}")
    return [present[path.stem] for path in truth]


def find_truth(root: Path, annotations: str = "Annotations", split: str = "val", year: str = "2017") -> TruthFolder:
    """Find the sequences of a data set under ``root``.

    Understood are a DAVIS root (``root/<annotations>/480p/<sequence>/*.png`` with the sequences of
    ``root/ImageSets/<year>/<split>.txt``), plain folders (``root/<sequence>/masks/*.png`` or
    ``root/<sequence>/*.png``, all sequences), and the roots of YouTube-VOS and MOSE, which have these in
    ``Annotations``, or one level further down in that of the split.

    Raises:
        InputError: nothing found, or a sequence of the split has no ground truth.
        UsageError: unknown split.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of ground truth")
    davis = root / annotations / "480p"
    if davis.is_dir():
        folders = listed_sequences(root / "ImageSets" / year, davis, split)
        return TruthFolder(f"DAVIS root, {annotations}/480p, ImageSets/{year}/{split}.txt", root, folders)
    if (root / "ImageSets").is_dir():
        raise InputError(f"{root}: a DAVIS root, but it has no folder {annotations}/480p")
    if folders := label_folders(root):
        return TruthFolder("plain folders, one per sequence", root, folders)
    for inner in ("", *same_split(split)):
        if folders := label_folders(root / inner / "Annotations"):
            place = "/".join(filter(None, (inner, "Annotations")))
            return TruthFolder(f"{place}, one folder per sequence", root / inner, folders)
    if data_files(root, _PNG):
        raise only_one_sequence(root)
    raise InputError(
        f"{root}: no ground truth: expected a DAVIS root ({annotations}/480p and ImageSets/{year}/{split}.txt) or "
        "folders <sequence>/masks/*.png or <sequence>/*.png"
    )


def only_one_sequence(root: Path) -> InputError:
    """What to say of the folder of one sequence where that of all was expected."""
    return InputError(f"{root} is one sequence: name the folder of all sequences, {root.resolve().parent}")


def label_folders(folder: Path) -> dict[str, Path]:
    """The folders of ``folder`` that hold label maps, by name; none where there is no such folder."""
    if not folder.is_dir():
        return {}
    return {path.name: path for path in data_folders(folder) if data_files(frame_folder(path), _PNG)}


def listed_sequences(lists: Path, folders: Path, split: str) -> dict[str, Path]:
    """The sequences that the text file ``split`` of ``lists`` names, each with its folder in ``folders``.

    Raises:
        UsageError: no such file.
        InputError: it is empty, names a sequence twice or one without a folder.
    """
    listing = lists / f"{split}.txt"
    if not listing.is_file():
        allowed = sorted(path.stem for path in lists.glob("*.txt") if counts(path.name))
        raise UsageError(f"unknown split '{split}'{did_you_mean(split, allowed)}: {lists} has {allowed}")
    names = [line.strip() for line in read_text(listing).split("\n") if line.strip()]
    if not names:
        raise InputError(f"{listing}: no sequences in it")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{listing}: sequence '{repeated[0]}' is listed more than once")
    for name in names:
        if not (folders / name).is_dir():
            raise InputError(f"{folders}: sequence '{name}' of {listing.name} has no folder there")
    return {name: folders / name for name in names}
