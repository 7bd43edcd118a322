"""Trackers and detectors by name. A package adds one with an entry point; no fork needed.

In the groups ``vidseg.trackers`` and ``vidseg.detectors`` an entry point names a function
``build(options, *, device, dtype, offline)`` that gives a :class:`~vidseg.types.Tracker` or a
:class:`~vidseg.types.Detector`. ``options`` is a mapping of its own settings; unknown settings are a
:class:`~vidseg.errors.UsageError`. A module may name the weights that it uses by default as ``DEFAULT_WEIGHTS``,
or, where these depend on the model that draws the masks, have a function ``default_weights(model)``.

A package that is broken is a :class:`~vidseg.errors.UsageError` that names it, and only for who asks for it by name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg.errors import UsageError, VidsegError, did_you_mean
from vidseg.types import Detector, Tracker

if TYPE_CHECKING:
    import torch

_GROUPS = {"tracker": "vidseg.trackers", "detector": "vidseg.detectors"}
KINDS = tuple(_GROUPS)
_MEMBERS = {
    "tracker": (
        *("lookahead", "wants_masks", "finds_objects"),
        *("start", "step", "finish", "state_dict", "load_state_dict"),
    ),
    "detector": ("detect",),
}


def installed(kind: str) -> list[str]:
    """Names of all installed trackers or detectors (``kind``), sorted."""
    return sorted(_declared(kind).names)


def check_name(kind: str, name: str) -> None:
    """Raise a UsageError, with the allowed names and the closest, when ``kind`` has none called ``name``."""
    names = installed(kind)
    if name not in names:
        raise UsageError(f"unknown {kind} '{name}'{did_you_mean(name, names)}: available are {', '.join(names)}")


def weights_used(kind: str, name: str, options: Mapping[str, object], model: str) -> str | None:
    """Name or file of the weights that a tracker or detector would use, if any, where ``model`` draws the masks."""
    entry = _entry(kind, name)
    with _blamed(kind, entry, "cannot be imported"):
        module = importlib.import_module(entry.module)
    chosen = options.get("weights") or options.get("model") or "auto"
    if chosen != "auto":
        return str(chosen)
    if hasattr(module, "default_weights"):
        with _blamed(kind, entry, "cannot name its weights"):
            return str(module.default_weights(model))
    default: str | None = getattr(module, "DEFAULT_WEIGHTS", None)
    return default


def build_tracker(
    name: str,
    options: Mapping[str, object] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    offline: bool = False,
) -> Tracker:
    """Build the tracker called ``name``; ``dtype`` is float32 unless given.

    Raises:
        UsageError: unknown name or unknown option, or the package of the tracker is broken.
    """
    tracker: Tracker = _build("tracker", name, options, device, dtype, offline)
    return tracker


def build_detector(
    name: str,
    options: Mapping[str, object] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    offline: bool = False,
) -> Detector:
    """Build the detector called ``name``; errors as :func:`build_tracker`."""
    detector: Detector = _build("detector", name, options, device, dtype, offline)
    return detector


def broken_plugins() -> list[str]:
    """One line for each tracker or detector of another package that cannot be imported."""
    lines = []
    for kind in KINDS:
        for entry in sorted(_declared(kind), key=lambda entry: entry.name):
            if not _is_ours(entry):
                try:
                    with _blamed(kind, entry, "cannot be imported"):
                        entry.load()
                except VidsegError as error:
                    lines.append(str(error))
    return lines


def package_of(kind: str, name: str) -> str:
    """Names and versions of the packages that give a tracker or detector; empty for our own."""
    return ", ".join(_package(entry) for entry in _declared(kind).select(name=name) if not _is_ours(entry))


def _declared(kind: str) -> EntryPoints:
    """The entry points of all installed packages. Reading them takes some 30 ms, so it is done once per kind."""
    return _read_declared(kind, tuple((place, _changed(place)) for place in sys.path))


@lru_cache(maxsize=2 * len(_GROUPS))
def _read_declared(kind: str, places: tuple[tuple[str, int], ...]) -> EntryPoints:
    """As :func:`_declared`; ``places`` are other ones when a package was installed or removed since."""
    return entry_points(group=_GROUPS[kind])


def _changed(place: str) -> int:
    """When something was last put into a folder, or taken out; 0: there is none."""
    try:
        return Path(place or ".").stat().st_mtime_ns
    except OSError:
        return 0


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"


def _is_ours(entry: EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == "vidseg"


@contextmanager
def _blamed(kind: str, entry: EntryPoint, what: str) -> Iterator[None]:
    """Errors that no user caused become one line that names the package of a plug-in."""
    try:
        yield
    except VidsegError:
        raise
    except (Exception, SystemExit) as error:
        if _is_ours(entry):
            raise
        raise UsageError(f"{_plugin(kind, entry)} {what}: {type(error).__name__}: {error}") from error


def _plugin(kind: str, entry: EntryPoint) -> str:
    return f"{kind} '{entry.name}' of the package {_package(entry)} (entry point {entry.value})"


def _entry(kind: str, name: str) -> EntryPoint:
    check_name(kind, name)
    entries = list(_declared(kind).select(name=name))
    if len(entries) > 1:
        packages = ", ".join(sorted(map(_package, entries)))
        raise UsageError(f"{kind} '{name}' is in several packages, {packages}: uninstall all but one")
    return entries[0]


def _build(
    kind: str,
    name: str,
    options: Mapping[str, object] | None,
    device: torch.device | str,
    dtype: torch.dtype | None,
    offline: bool,
) -> Any:
    import torch  # here: a name is checked without it

    entry = _entry(kind, name)
    with _blamed(kind, entry, "cannot be imported"):
        build = entry.load()
    with _blamed(kind, entry, "cannot be built"):
        built = build(dict(options or {}), device=torch.device(device), dtype=dtype or torch.float32, offline=offline)
    missing = [member for member in _MEMBERS[kind] if not hasattr(built, member)]
    if missing:
        raise UsageError(f"{_plugin(kind, entry)} is no {kind}: {type(built).__name__} lacks {', '.join(missing)}")
    return built
