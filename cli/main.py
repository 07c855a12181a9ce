"""The entry point of ``navarch``.

Start-up time is what every command pays, so only the module that holds the wanted command is imported; ``--help`` (or a
word that is no command) needs them all.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

import typer

COMPLETING = "_NAVARCH_COMPLETE"  # set by the shell when it wants completions, not a run

# Module -> its commands, in the order in which --help shows them.
COMMANDS = {
    "cli.labs": ("up", "down", "status", "kubeconfig", "node"),
    "cli.apply": ("apply", "create"),
    "cli.editing": ("replace", "edit", "diff"),
    "cli.making": ("run", "expose", "autoscale"),
    "cli.get": ("get",),
    "cli.describe": ("describe",),
    "cli.events": ("events",),
    "cli.top": ("top",),
    "cli.why": ("why", "what-if"),
    "cli.label": ("label", "annotate"),
    "cli.templates": ("set",),
    "cli.patch": ("patch",),
    "cli.delete": ("delete",),
    "cli.logs": ("logs",),
    "cli.scale": ("scale",),
    "cli.rollout": ("rollout",),
    "cli.wait": ("wait",),
    "cli.execute": ("exec",),
    "cli.copying": ("cp",),
    "cli.portforward": ("port-forward",),
    "cli.maintenance": ("cordon", "uncordon", "drain", "taint"),
    "cli.review": ("auth",),
    "cli.information": ("version", "api-resources", "api-versions", "cluster-info", "explain"),
    "cli.completion": ("completion",),
}
# Command -> module whose application is a group of that name.
GROUPS = {"image": "cli.images"}


def build(arguments: Sequence[str]) -> typer.Typer:
    """The application, with the part that ``arguments`` need or, if that is not clear, with all parts."""
    app = typer.Typer(
        name="navarch",
        help="A Kubernetes-compatible cluster on one machine: real containers, real nodes, in seconds.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_group)
    word = next((argument for argument in arguments if not argument.startswith("-")), "")
    groups = [word] if word in GROUPS else []
    modules = [module for module, commands in COMMANDS.items() if word in commands]
    if not groups and not modules:
        groups, modules = list(GROUPS), list(COMMANDS)
    for group in groups:
        app.add_typer(importlib.import_module(GROUPS[group]).app, name=group)
    for module in modules:
        part: typer.Typer = importlib.import_module(module).app
        app.registered_commands += part.registered_commands
        app.registered_groups += part.registered_groups
    return app


def _group() -> None:
    """Keeps Typer from taking the only command that was imported for the whole program."""


def main() -> None:
    if COMPLETING in os.environ:
        from cli.completion import words_of

        words = words_of(os.environ)
        # A first word that is not finished yet may be any command.
        build(words if len(words) > 1 or (words and words[0] in _known()) else [])(prog_name="navarch")
        return
    word = sys.argv[1] if len(sys.argv) > 1 else "-"
    known = _known()
    if not word.startswith("-") and word not in known:
        near = difflib.get_close_matches(word, known, 1)
        print(f'error: unknown command "{word}" for "navarch"', file=sys.stderr)
        print(f"Did you mean {near[0]}?" if near else "See navarch --help.", file=sys.stderr)
        raise SystemExit(1)
    build(sys.argv[1:])()


def _known() -> list[str]:
    return [*GROUPS, *(command for commands in COMMANDS.values() for command in commands)]


if __name__ == "__main__":
    main()
