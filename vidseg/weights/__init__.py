"""Weights: the catalogue, fetching, safe reading, conversion."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vidseg.weights.catalog import CATALOG, find_local, split_added, split_model
from vidseg.weights.fetch import file_digest, file_here


def weights_identity(model: str) -> dict[str, str]:
    """Name and sha256 of the weights that ``model`` stands for, for manifests: a catalogue name, a file, NAME=FILE, or
    BASE+FILE, whose digests are joined by "+".

    Fetched files with a published checksum were verified then and are not read again. The digest is empty for weights
    that are not on this machine.
    """
    base, added = split_added(model)
    if added is not None:
        return {"name": model, "sha256": f"{weights_identity(base)['sha256']}+{_digest(added)}"}
    name, path = split_model(model)
    if path is None:
        entry = CATALOG.get(name)
        if entry is not None and entry.sha256 is not None:
            return {"name": model, "sha256": entry.sha256}
        path = find_local(name) if entry is not None else None
    return {"name": model, "sha256": "" if path is None else _digest(path)}


def _digest(path: Path) -> str:
    """sha256 of a file; of a folder, that of the names and digests of its files; empty for neither."""
    path = file_here(path)
    if path.is_file():
        return file_digest(path, "sha256")
    if not path.is_dir():
        return ""
    files = [(file.name, file_digest(file, "sha256")) for file in sorted(path.iterdir()) if file.is_file()]
    return hashlib.sha256(repr(files).encode()).hexdigest()
