"""``vidseg weights``: list, fetch, verify and convert."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from vidseg.errors import UsageError, WeightsError
from vidseg.names import printable
from vidseg.weights.catalog import CATALOG, Entry, find_entry, find_local, weights_folder
from vidseg.weights.fetch import fetch, file_digest, mismatch
from vidseg.weights.progress import DownloadBar

if TYPE_CHECKING:
    from vidseg.sam.model import Sam
    from vidseg.weights.read import WeightFile


@dataclass(frozen=True)
class ListCommand:
    """List the weights that load by name, with their source and licence.

    Examples:
      vidseg weights list
      vidseg weights list --json
    """

    json: bool = False
    """Print the whole catalogue as JSON."""

    def run(self) -> int:
        """Print the table; returns 0."""
        if self.json:
            rows = [{**asdict(e), "here": str(find_local(e.name) or "")} for e in CATALOG.values()]
            sys.stdout.write(json.dumps(rows, indent=1) + "\n")
            return 0
        console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 80, highlight=False)
        for title, (families, more) in _GROUPS.items():
            entries = [entry for entry in CATALOG.values() if entry.family in families]
            console.print(f"\n[bold]{escape(title)}[/bold]")
            console.print(_table(entries))
            for text in [*(f"{e.name}: {e.note}" for e in entries if e.note), *([more] if more else [])]:
                console.print(Padding(escape(text), (0, 0, 0, 2)), style="dim")
        console.print(f"\n[bold]here[/bold]: embedded, or kept in {escape(printable(str(weights_folder())))}")
        return 0


_GROUPS = {  # title: (catalogue families, a note on alternatives)
    "Image models: draw the masks (--model NAME)": (("sam", "sam2"), ""),
    "Trackers: follow the objects (--tracker, --tracker-option weights=NAME)": (
        ("xmem", "cutie"),
        "SAM 2 is also a tracker (--tracker sam2), with the weights of the image model",
    ),
    "Detectors: find objects by class (--detect-with, --tracker mask2former)": (
        ("mask2former",),
        "any name (--text): models from the Hugging Face Hub, see docs/text.md",
    ),
}


def _table(entries: Sequence[Entry]) -> Table:
    """One row per entry; titles may wrap, names never."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("name", "what", "size", "licence", "here"):
        table.add_column(column, no_wrap=column != "what", justify="right" if column == "size" else "left")
    for e in entries:
        here = "yes" if find_local(e.name) else ""
        table.add_row(e.name, e.title, f"{e.size / 1e6:,.0f} MB" if e.size else "", e.licence, here)
    return table


@dataclass(frozen=True)
class FetchCommand:
    """Download weights, continue interrupted downloads, verify them.

    Examples:
      vidseg weights fetch sam-hq-vit-l
      vidseg weights fetch sam-hq-vit-tiny xmem --folder weights
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Names from the catalogue."""
    folder: Path | None = None
    """Folder for the files (default: $VIDSEG_WEIGHTS, otherwise the cache folder)."""

    def run(self) -> int:
        """Fetch every name; returns 0.

        Raises:
            UsageError: unknown name, or an embedded one. WeightsError: a download failed.
        """
        entries = [find_entry(name) for name in self.names]
        if not entries:
            raise UsageError("which weights? vidseg weights fetch NAME... (see `vidseg weights list`)")
        console = Console(file=sys.stderr)
        for entry in entries:
            if entry.embedded:
                raise UsageError(f"weights '{entry.name}' come with vidseg: nothing to fetch")
            if entry.non_commercial:
                console.print(f"{entry.name}: licence {entry.licence}, no commercial use")
            path = fetch(entry, self.folder or weights_folder(), progress=DownloadBar(entry.name))
            sys.stdout.write(f"{printable(str(path))}\n")
        return 0


@dataclass(frozen=True)
class VerifyCommand:
    """Check files against the size and checksum of the catalogue. Exit code 4 when one is wrong.

    Examples:
      vidseg weights verify                     # all local weights
      vidseg weights verify sam_hq_vit_l.pth
    """

    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME_OR_FILE")] = ()
    """Catalogue names or files with the published names; default: all local ones."""

    def run(self) -> int:
        """Print one line per file; 0 when all are right, 4 otherwise."""
        by_file = {e.file: e for e in CATALOG.values()}
        wrong = False
        for name in self.files or tuple(n for n in CATALOG if find_local(n)):
            if name in CATALOG:
                entry: Entry = CATALOG[name]
                path = find_local(name) or weights_folder() / entry.file
            else:
                path = Path(name)
                if path.name not in by_file:
                    raise UsageError(f"{path}: no weights of this name in the catalogue; see `vidseg weights list`")
                entry = by_file[path.name]
            problem = mismatch(path, entry) if path.is_file() else "not on this machine"
            wrong = wrong or bool(problem)
            known = entry.sha256 or entry.md5_prefix
            verdict = problem or "ok"
            if not problem and not known:
                verdict = f"no published checksum, sha256 {file_digest(path, 'sha256')}"
            sys.stdout.write(printable(f"{entry.name}: {path}: {verdict}") + "\n")
        return WeightsError.exit_code if wrong else 0


@dataclass(frozen=True)
class ConvertCommand:
    """Convert official or Hugging Face SAM and SAM 2 files to one safetensors file that loads by its path; also merges
    a trained decoder with its SAM.

    Examples:
      vidseg weights convert sam_hq_vit_l.pth
      vidseg weights convert sam2.1_hiera_tiny.pt
      vidseg weights convert epoch_11.pth --sam sam_vit_l_0b3195.pth --output my-hq.safetensors
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Official .pth, Hugging Face model.safetensors, a checkpoint from your own training (its tensors may be wrapped in
    dictionaries and have prefixes), or a decoder file from the official HQ-SAM training."""
    sam: Path | None = None
    """The SAM file that a decoder file was trained on."""
    output: Path | None = None
    """File to write (default: FILE with the suffix .safetensors)."""
    overwrite: bool = False
    """Replace an existing file."""

    def run(self) -> int:
        """Write the file; returns 0.

        Raises:
            UsageError: the output exists. WeightsError: a file is damaged or the parts do not fit.
        """
        from vidseg.loading import ANY_SAM
        from vidseg.sam.build import save_sam
        from vidseg.sam2.loading import is_sam2, sam2_from_file, save_sam2
        from vidseg.weights.read import read_weights

        target = self.output or self.file.with_suffix(".safetensors")
        if target.exists() and not self.overwrite:
            raise UsageError(f"{target} exists: choose another --output, or add --overwrite")
        source = read_weights(self.file, ANY_SAM)
        if is_sam2(source.tensors) and self.sam is None:
            write = partial(save_sam2, sam2_from_file(source))
        else:
            write = partial(save_sam, self._sam(source))
        try:
            write(target)
        except OSError as error:
            raise WeightsError(f"cannot write {target}: {error.strerror or error}") from error
        sys.stdout.write(f"{printable(str(target))}\n")
        return 0

    def _sam(self, source: WeightFile) -> Sam:
        from vidseg.sam.build import from_state
        from vidseg.sam.convert import SAM, infer_sam_config, is_decoder_only, merge_decoder, official_sam_state
        from vidseg.weights.read import read_weights

        if self.sam is not None:
            if not is_decoder_only(source.tensors):
                raise UsageError(f"--sam joins a decoder-only file with its SAM, but {self.file} is not decoder-only")
            state, metadata = merge_decoder(source.tensors, official_sam_state(read_weights(self.sam, SAM))), {}
        else:
            state, metadata = official_sam_state(source), source.metadata
        return from_state(infer_sam_config(state, str(self.file), metadata), state, str(self.file))
