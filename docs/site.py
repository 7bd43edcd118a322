"""What the site adds to the pages in this folder: one page with the help of every command. A hook of MkDocs."""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stdout, suppress
from typing import Any
from unittest import mock

from mkdocs.structure.files import File, Files

from vidseg_pipelines.cli import COMMANDS, main

HEAD = """# Commands

What `vidseg COMMAND --help` prints. Exit codes: 0 done, 2 usage, 3 input unreadable, 4 weights missing or wrong,
5 partly done, 1 internal error or output not writable, 130 interrupted.
"""


def on_files(files: Files, config: Any) -> Files:
    """Add commands.md."""
    text = HEAD + "".join(f"\n## vidseg {name}\n\n```text\n{help_of(name)}\n```\n" for name in COMMANDS)
    files.append(File.generated(config, "commands.md", content=text))
    return files


def help_of(name: str) -> str:
    """The help of a command, as a terminal of 84 columns shows it."""
    shown = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS="84", NO_COLOR="1"), redirect_stdout(shown), suppress(SystemExit):
        main([*name.split(), "--help"])
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue()).strip()


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name things as Sphinx does; the site shows their names alone."""
    return re.sub(r":(?:func|class|meth|data|mod|attr):(?=<code>)", "", html)
