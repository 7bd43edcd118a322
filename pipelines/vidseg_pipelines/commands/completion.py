"""``vidseg completion``: a script that completes commands, options and names in a shell."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from vidseg.registry import installed
from vidseg.weights.catalog import CATALOG
from vidseg_pipelines.commands.options import Option, options_of
from vidseg_pipelines.commands.table import COMMANDS, find_command


@dataclass(frozen=True)
class CompletionCommand:
    """Print a script that completes commands, options, and names of models and trackers with the Tab key.

    Examples:
      source <(vidseg completion bash)        # now; for good: add this line to ~/.bashrc
      source <(vidseg completion zsh)         # or to ~/.zshrc
    """

    shell: Annotated[Literal["bash", "zsh"], tyro.conf.Positional, tyro.conf.arg(metavar="bash|zsh")]
    """The shell."""

    def run(self) -> int:
        """Print the script; returns 0."""
        sys.stdout.write(completion_script(self.shell, {name: options_of(find_command(name)) for name in COMMANDS}))
        return 0


_SCRIPT = """\
_vidseg_options() {{
    case "$1" in
{options}
    esac
}}
_vidseg_values() {{
    case "$1" in
{values}
    esac
}}
_vidseg() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words
    local pair="${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" name="${{COMP_WORDS[1]}}"
    [[ $COMP_CWORD -gt 2 && -n "$(_vidseg_options "$pair")" ]] && name="$pair"
    if [[ $COMP_CWORD -eq 1 ]]; then
        words="{first}"
    elif [[ "$current" == -* ]]; then
        words="$(_vidseg_options "$name")"
    elif [[ $COMP_CWORD -eq 2 && -n "$(_vidseg_values "$name")" ]]; then
        words="$(_vidseg_values "$name")"
    else
        words="$(_vidseg_values "$name $before")"
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _vidseg vidseg
"""


def completion_script(shell: str, commands: dict[str, list[Option]]) -> str:
    """The script for a shell: ``commands`` are the options by name of the command."""
    options, values = dict[str, list[str]](), dict[str, list[str]]()
    for name, its in commands.items():
        group, _, second = name.partition(" ")
        if second:
            values.setdefault(group, []).append(second)
        options[name] = [option.flag for option in its if option.flag] + ["--help"]
        for option in its:
            choices = list(option.choices) or _names(name, option)
            if choices and option.flag:
                values[f"{name} {option.flag}"] = choices
            elif choices:
                values.setdefault(name, []).extend(choices)
                values[f"{name} {name.rpartition(' ')[2]}"] = choices
    first = [*dict.fromkeys(name.partition(" ")[0] for name in commands), "--help", "--version"]
    script = _SCRIPT.format(options=_cases(options), values=_cases(values), first=" ".join(first))
    return ("autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "") + script


def _names(command: str, option: Option) -> list[str]:
    """Names that an option takes besides files."""
    if option.name == "model":
        return [name for name, entry in CATALOG.items() if entry.family in ("sam", "sam2")]
    if option.name == "tracker":
        return installed("tracker")
    if option.name == "detect_with":
        return installed("detector")
    return list(CATALOG) if command in ("weights fetch", "weights verify") and not option.flag else []


def _cases(table: dict[str, list[str]]) -> str:
    return "\n".join(f'        "{name}") echo "{" ".join(words)}" ;;' for name, words in table.items())
