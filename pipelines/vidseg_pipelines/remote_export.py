"""Exports of a run in object storage, or into it: made in a folder here, and uploaded when all are whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vidseg.atomic_files import make_folder
from vidseg.errors import InputError, VidsegError
from vidseg.outputs.layout import LOCK, MANIFEST
from vidseg.storage import object_url
from vidseg_pipelines.remote_folder import RemoteFolder


@contextmanager
def exported(run_dir: Path, output: Path | None) -> Iterator[tuple[Path, Path]]:
    """The folders here to export from and to; what is written to the second goes where ``output`` says.

    Raises:
        UsageError: another process writes there. InputError: there is no run. OutputError: it cannot be written.
    """
    source, target = object_url(run_dir), object_url(output or run_dir)
    with tempfile.TemporaryDirectory(prefix="vidseg-export-") as name, ExitStack() as stack:
        run, made = Path(name) / "run", Path(name) / "made"
        try:
            if target is not None:
                stack.enter_context(RemoteFolder(target).claimed())
            if source is not None:
                remote = RemoteFolder(source)
                if not remote.has_journal:
                    raise InputError(f"{source}: contains no run; give the output folder of a run")
                make_folder(run)
                remote.fetch_journal(run)
                if remote.storage.describe(MANIFEST) is not None:
                    remote.storage.download(MANIFEST, run / MANIFEST)
            yield run if source is not None else run_dir, made if target is not None else output or run_dir
            if target is not None:
                storage = RemoteFolder(target).storage
                for path in sorted(made.rglob("*")):
                    if path.is_file() and path.name != LOCK:
                        storage.upload(path, path.relative_to(made).as_posix())
        except VidsegError as error:
            text = str(error).replace(str(run), str(source)).replace(str(made), str(target))
            error.args = (text,)
            raise
