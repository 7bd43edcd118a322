"""``vidseg completion``: a script that completes commands, options and names in a shell."""

from __future__ import annotations

import sys
import textwrap
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
      vidseg completion fish | source         # or to ~/.config/fish/config.fish
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional, tyro.conf.arg(metavar="bash|zsh|fish")]
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


_FISH = """\
function __vidseg_at
    set -l words (commandline -opc)[2..]
    for i in (seq (count $argv))
        test "$words[$i]" = $argv[$i]; or return 1
    end
end
function __vidseg_next
    __vidseg_at $argv; and test (count (commandline -opc)) -eq (math (count $argv) + 1)
end
"""


def completion_script(shell: str, commands: dict[str, list[Option]]) -> str:
    """The script for a shell: ``commands`` are the options by name of the command."""
    if shell == "fish":
        return _fish_script(commands)
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
    script = _SCRIPT.format(options=_cases(options), values=_cases(values), first=" ".join(_first(commands)))
    return ("autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "") + script


def _fish_script(commands: dict[str, list[Option]]) -> str:
    """One ``complete`` for each word and option; where none fits, fish completes files."""
    lines = [_complete("__vidseg_next", f"-f -a {word}", COMMANDS.get(word, ("", ""))[1]) for word in _first(commands)]
    for name, its in commands.items():
        group, _, second = name.partition(" ")
        at = f"__vidseg_at {name}"
        if second:
            lines.append(
                _complete(
                    f"__vidseg_next {group}", f"{'' if group in commands else '-f '}-a {second}", COMMANDS[name][1]
                )
            )
        else:  # not the options of `batch` where `batch status` is typed
            at += "".join(f"; and not __vidseg_at {other}" for other in commands if other.startswith(name + " "))
        lines.append(_complete(at, "-l help", "show this help"))
        for option in its:
            choices = list(option.choices) or _names(name, option)
            words = f" -a {_quoted(' '.join(choices))}" if choices else ""
            takes = ("-x" if option.choices else "-r") if option.metavar else ""
            if option.flag:
                lines.append(_complete(at, f"-l {option.flag[2:]} {takes}{words}".rstrip(), option.help))
            elif choices:
                lines.append(_complete(at, f"-f{words}", ""))
    return _FISH + "\n".join(lines) + "\n"


def _complete(condition: str, what: str, text: str) -> str:
    """One line; of the text the first sentence, as far as it fits beside a word."""
    text = textwrap.shorten(text.partition(". ")[0].rstrip("."), 60, placeholder="...")
    return f"complete -c vidseg -n {_quoted(condition)} {what}" + (f" -d {_quoted(text)}" if text else "")


def _quoted(text: str) -> str:
    """A word of fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _first(commands: dict[str, list[Option]]) -> list[str]:
    """What can follow ``vidseg``."""
    return [*dict.fromkeys(name.partition(" ")[0] for name in commands), "--help", "--version"]


def _names(command: str, option: Option) -> list[str]:
    """Names that an option takes besides files."""
    if option.name == "model" or (command, option.name) == ("train hq", "start"):
        return [name for name, entry in CATALOG.items() if entry.family in ("sam", "sam2")]
    if option.name == "tracker":
        return installed("tracker")
    if option.name == "detect_with":
        return installed("detector")
    return list(CATALOG) if command in ("weights fetch", "weights verify") and not option.flag else []


def _cases(table: dict[str, list[str]]) -> str:
    return "\n".join(f'        "{name}") echo "{" ".join(words)}" ;;' for name, words in table.items())
