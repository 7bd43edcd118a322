"""Which process of which machine something is: names that no other process has had."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

import psutil


def host_name() -> str:
    """This machine since its last start, and inside containers this space of process ids."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text()[:8])
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


def process_born(pid: int) -> str:
    """When a process of this machine began, empty when there is none.

    The number of Linux itself does not move with the clock; the times of other systems do not either.
    """
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]  # a zombie is dead
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return ""
