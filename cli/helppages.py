"""The pages that ``--help`` shows."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from cli.options import App, Command, HelpAsked, Parameter


def bold(text: str) -> str:
    """The text as a heading, if somebody looks at it on a terminal."""
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


def listing(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Two columns, the second wrapped to the terminal's width."""
    rows = list(rows)
    width = min(30, max((len(left) for left, _ in rows), default=0))
    room = max(40, min(120, shutil.get_terminal_size((100, 24)).columns) - width - 4)
    out = []
    for left, right in rows:
        lines = textwrap.wrap(right, room) or [""]
        if len(left) > width:
            out.append(f"  {left}")
            left = ""
        else:
            lines = lines or [""]
        out += [f"  {left if i == 0 else '':{width}}  {line}".rstrip() for i, line in enumerate(lines)]
    return out


def _option(parameter: Parameter) -> tuple[str, str]:
    flags = ", ".join([*parameter.opts, *parameter.secondary_opts])
    metavar = f" {parameter.metavar}" if parameter.metavar and not parameter.is_flag else ""
    text = parameter.declared.help
    default = parameter.declared.show_default
    if default is True or (not default and parameter.default not in (None, "", False, True)):
        default = str(parameter.default)
    return flags + metavar, f"{text} [default: {default}]".strip() if default else text


def _section(title: str, parameters: Sequence[Parameter]) -> list[str]:
    return ["", bold(title), *listing(_option(p) for p in parameters)] if parameters else []


def command_page(command: Command, path: str) -> str:
    """The help of one command."""
    places = [p for p in command.params if not p.opts]
    shown = " ".join(p.metavar if p.required or p.metavar.startswith("[") else f"[{p.metavar}]" for p in places)
    own = [p for p in command.params if p.opts and p.name not in command.extra]
    out = [f"{bold('Usage:')} {path} [OPTIONS] {shown}".rstrip(), "", textwrap.indent(textwrap.dedent(command.help), "  ")]
    said = [(p.metavar, p.declared.help) for p in places if p.declared.help]
    out += ["", bold("Arguments:"), *listing(said)] if said else []
    out += _section("Options:", own)
    out += _section("Which cluster:", [p for p in command.params if p.name in command.extra])
    return "\n".join([*out, "", "  -h, --help  Show this page."])


def group_page(app: App, path: str) -> str:
    """The help of a group of commands."""
    rows = [(name, command.help.partition("\n")[0]) for name, command in app.commands.items()]
    return "\n".join([f"{bold('Usage:')} {path} COMMAND ...", "", f"  {app.help}", "", bold("Commands:"), *listing(rows)])


def page(request: HelpAsked) -> str:
    """The help page that was asked for."""
    about = request.about
    return group_page(about, request.path) if isinstance(about, App) else command_page(about, request.path)


def program_page(text: str, groups: Mapping[str, Mapping[str, str]]) -> str:
    """The help of the whole program: title -> command -> what it does."""
    out = [f"{bold('Usage:')} navarch COMMAND ...", "", f"  {text}"]
    for title, commands in groups.items():
        out += ["", bold(f"{title}:"), *listing(commands.items())]
    out += ["", "navarch COMMAND --help tells more of a command; navarch --version says which navarch this is."]
    return "\n".join(out)
