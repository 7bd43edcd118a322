"""Settings of a run that can be refused before a model or a video is loaded."""

from __future__ import annotations

from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg.outputs.style import parse_style
from vidseg.registry import check_name


def check_settings(config: RunConfig) -> None:
    """Refuse settings that cannot be right (UsageError), before anything is opened."""
    if not config.input:
        raise UsageError("no video given: vidseg run VIDEO (a file, a folder of images, a camera, a stream, or -)")
    config.check()
    parse_style(config.overlay_style)
    if "parquet" in config.saves:
        from vidseg.outputs.parquet import check_parquet

        check_parquet()
    check_name("tracker", config.tracker)
    if config.detector:
        check_name("detector", config.detector)
