"""Downloads that can be trusted: into ``.part``, resumed after interruptions, verified, then renamed."""

from __future__ import annotations

import hashlib
import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse

from vidseg.errors import AbsentWeightsError, InputError, UsageError, WeightsError, did_you_mean
from vidseg.locks import file_lock
from vidseg.storage import url_of
from vidseg.storage_cache import here
from vidseg.weights.catalog import CATALOG, Entry, find_entry, find_local, split_model, weights_folder

Progress = Callable[[int, int | None], None]
"""Called with (bytes there, bytes in all or None)."""

CHUNK = 1 << 20


def locate(name: str, *, offline: bool = False, progress: Progress | None = None) -> Path:
    """The file of a catalogue entry, fetched first unless it is here already or ``offline`` forbids it.

    A file that was fetched earlier is verified again: what is loaded is what the catalogue names.

    Raises:
        WeightsError: not here and offline, the download failed, or what is here is another file or a link.
    """
    entry = find_entry(name)
    if entry.non_commercial:
        warning = "weights %s: licence %s, for non-commercial use only (%s)"
        logging.getLogger("vidseg").warning(warning, name, entry.licence, entry.paper)
    path = find_local(name)
    if path is not None:
        _refuse_link(path)
        problem = mismatch(path, entry)
        if problem:
            raise WeightsError(f"{path}: {problem}: run `vidseg weights fetch {name}` to replace it")
        return path
    if entry.url is None:
        raise WeightsError(f"the embedded weights '{name}' are missing in this installation: install vidseg again")
    if offline:
        kept = weights_folder() / entry.file
        where = f"are damaged ({kept}: {mismatch(kept, entry)})" if kept.is_file() else "are not on this machine"
        raise AbsentWeightsError(
            name,
            f"weights '{name}' {where} and --offline forbids fetching them: run `vidseg weights fetch"
            f" {name}` first, or put {entry.file} from {entry.url} into {weights_folder()}",
        )
    return fetch(entry, weights_folder(), progress=progress)


def locate_model(
    model: str, what: str, *families: str, offline: bool = False, progress: Progress | None = None
) -> tuple[str, Path]:
    """The name that ``model`` gives (see :func:`split_model`; or "") and the file, fetched if need be.

    Only names of ``families`` count; ``what`` is what the error calls them, such as "XMem weights".

    Raises:
        UsageError: no such name. WeightsError: not here and ``offline``, or the download failed.
    """
    name, path = split_model(model)
    names = [n for n, entry in CATALOG.items() if entry.family in families]
    if name and name not in names:
        raise UsageError(f"unknown {what} '{name}'{did_you_mean(name, names)}: a file, or {', '.join(names)}")
    return name, file_here(path, offline=offline) if path else locate(name, offline=offline, progress=progress)


def file_here(path: Path, *, offline: bool = False) -> Path:
    """A file of weights, or a whole copy of it where it is a URL.

    Raises:
        WeightsError: it cannot be read, or is a URL and ``offline``.
    """
    if offline and (url := url_of(path)):
        raise WeightsError(f"{url}: remote weights, which --offline forbids")
    try:
        return here(path)
    except InputError as error:
        raise WeightsError(str(error)) from error


def fetch(
    entry: Entry,
    folder: Path,
    *,
    progress: Progress | None = None,
    timeout_s: float = 30.0,
    attempts: int = 5,
    pause_s: float = 1.0,
) -> Path:
    """Download ``entry`` into ``folder``; returns the path of the verified file.

    A connection that ends early or is silent for ``timeout_s`` is taken up again where it stopped, up to ``attempts``
    times with growing pauses. What was loaded stays in ``.part`` for the next call. Processes that want the same file
    wait for each other.

    Raises:
        WeightsError: unreachable, refused, or the content is not what the catalogue says.
    """
    if entry.url is None:
        raise WeightsError(f"weights '{entry.name}' come with vidseg and cannot be fetched")
    target, part = folder / entry.file, folder / f"{entry.file}.part"
    for path in (target, part):
        _refuse_link(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / f"{entry.file}.lock"):  # without locks two fetches at a time fail the verification
            if target.is_file() and not mismatch(target, entry):
                return target  # here already, or another process was faster
            resumed = part.is_file() and part.stat().st_size > 0
            _download(entry, part, progress, timeout_s, attempts, pause_s)
            problem = mismatch(part, entry)
            if problem and resumed:  # the earlier half may be from another file: once more from the start
                part.unlink()
                _download(entry, part, progress, timeout_s, attempts, pause_s)
                problem = mismatch(part, entry)
            if problem:
                part.unlink()
                raise WeightsError(f"{entry.url}: {problem}; nothing was kept, try again later")
            part.replace(target)
    except OSError as error:
        raise WeightsError(f"cannot write weights to {folder}: {error.strerror or error}") from error
    return target


def mismatch(path: Path, entry: Entry) -> str:
    """Why ``path`` is not the file of ``entry``; empty when it is."""
    size = path.stat().st_size
    if entry.size is not None and size != entry.size:
        return f"{size:,} bytes instead of {entry.size:,}"
    if entry.sha256 is not None:
        digest = file_digest(path, "sha256")
        if digest != entry.sha256:
            return f"sha256 {digest} instead of {entry.sha256}"
    if entry.md5_prefix is not None:
        digest = file_digest(path, "md5")
        if not digest.startswith(entry.md5_prefix):
            return f"md5 {digest} does not start with {entry.md5_prefix}"
    return ""


def _refuse_link(path: Path) -> None:
    """Links in the folder of fetched weights could make other files be loaded or overwritten."""
    if path.is_symlink():
        raise WeightsError(f"{path} is a link: refused; put the file itself there, or name it with --model FILE")


def file_digest(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects (urllib refuses file: itself), but not from https down to something that can be changed."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlparse(newurl).scheme != "https":
            raise WeightsError(f"{req.full_url} redirects to {newurl}, which is not safe: refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(
    entry: Entry, part: Path, progress: Progress | None, timeout_s: float, attempts: int, pause_s: float
) -> None:
    reason = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            if _continue(entry, part, progress, timeout_s):
                return
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code == 416 and part.is_file():  # nothing after what is here: complete, or not a prefix at all
                if entry.size is None or part.stat().st_size == entry.size:
                    return
                part.unlink()
                reason = "the server cannot continue the partial file"
            elif error.code < 500 and error.code not in (408, 429):
                raise WeightsError(f"{entry.url}: the server answers {error.code} {error.reason}") from None
            else:
                reason = f"the server answers {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            silent = isinstance(cause, TimeoutError) or "timed out" in str(cause)
            reason = f"no data for {timeout_s:g} s" if silent else str(cause) or type(error).__name__
    have = part.stat().st_size if part.is_file() else 0
    raise WeightsError(
        f"{entry.url}: {reason} ({attempts} attempts, {have:,} bytes kept for the next); use a file you have with"
        f" --model PATH, or `vidseg weights list`"
    )


def _continue(entry: Entry, part: Path, progress: Progress | None, timeout_s: float) -> bool:
    """One connection; True when the server says that the file is complete."""
    assert entry.url is not None, "checked by the caller"
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "vidseg", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(entry.url, headers=headers)
    opener = urllib.request.build_opener(_SafeRedirects)
    with _network(opener.open, request, timeout=timeout_s) as answer:
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if not resumed:
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None and length.isdigit() else entry.size
        if entry.size is not None and total is not None and total > entry.size:
            raise WeightsError(f"{entry.url}: the server offers {total:,} bytes instead of {entry.size:,}")
        with part.open("ab" if resumed else "wb") as out:
            while block := _network(answer.read1, CHUNK):  # what is there: a stall loses nothing
                out.write(block)
                have += len(block)
                if entry.size is not None and have > entry.size:
                    raise WeightsError(f"{entry.url}: more than the {entry.size:,} bytes expected")
                if progress is not None:
                    progress(have, total)
    return total is None or have >= total


def _network(call: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """``call(...)``, whose errors of the operating system are all the connection's: never those of the disk."""
    try:
        return call(*args, **settings)
    except urllib.error.URLError:
        raise
    except OSError as error:  # TLS, time limits, resets, no route
        raise urllib.error.URLError(error) from error
