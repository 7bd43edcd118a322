"""Settings of a run that can be refused before a model or a video is loaded."""

from __future__ import annotations

from vidseg.address import parse_address, redact
from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg.outputs.style import parse_style
from vidseg.registry import check_name
from vidseg.storage import object_url


def check_settings(config: RunConfig) -> None:
    """Refuse settings that cannot be right (UsageError), before anything is opened."""
    if not config.input:
        raise UsageError("no video given: vidseg run VIDEO (a file, a folder of images, a camera, a stream, or -)")
    config.check()
    if config.offline and (url := object_url(config.output)):
        raise UsageError(f"--output {url}: object storage, which --offline forbids")
    check_direction(config)
    parse_style(config.overlay_style)
    if config.from_ is not None:
        from vidseg.annotations import check_format

        check_format(config.from_[0])
    if "parquet" in config.saves:
        from vidseg.outputs.parquet import check_parquet

        check_parquet()
    check_name("tracker", config.tracker)
    if config.detector:
        check_name("detector", config.detector)


def check_direction(config: RunConfig, *, live: bool = False) -> None:
    """Refuse to go backward in an input that cannot be read so (UsageError); ``live``: it turned out to be live."""
    if config.direction == "forward":
        return
    flag = f"--direction {config.direction}"
    if live or parse_address(config.input).kind not in ("file", "object"):
        raise UsageError(
            f"{flag}: {redact(config.input)} cannot be read backward, only files and folders can: record it first"
        )
    for name in ("stream", "deinterlace"):
        if getattr(config, name) not in (None, False):
            raise UsageError(f"{flag} and --{name} cannot be combined")
