"""``vidseg export-onnx``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from vidseg.config import Offline
from vidseg.errors import UsageError
from vidseg.names import printable


@dataclass(frozen=True)
class ExportOnnxCommand:
    """Write encoder.onnx, decoder.onnx and model.json for runtimes without PyTorch (needs the extra `onnx`).

    Examples:
      vidseg export-onnx --output onnx
      vidseg export-onnx --model sam-hq-vit-b --output onnx
    """

    output: Path
    """Folder to write to."""
    model: str = "compact"
    """Catalogue name (see `vidseg weights list`), checkpoint file, or NAME=FILE."""
    offline: Offline = False

    def run(self) -> int:
        """Export; returns 0."""
        from vidseg.loading import load_sam
        from vidseg.sam.model import Sam
        from vidseg.sam.onnx_export import export_onnx
        from vidseg.weights.progress import DownloadBar

        sam = load_sam(self.model, offline=self.offline, progress=DownloadBar(self.model))
        if not isinstance(sam, Sam):
            raise UsageError(f"export-onnx --model {self.model}: a SAM 2 cannot be exported; a SAM or HQ-SAM can")
        for path in export_onnx(sam, self.output):
            sys.stdout.write(f"{printable(str(path))}\n")
        return 0
