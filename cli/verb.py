"""Turns a function into a kubectl-like verb: the options that every verb has, kubectl's ways of writing flags, and
running a coroutine against the cluster with errors in kubectl's words.

    @verb(app)
    def version(where: Where, output: Annotated[str, OUTPUT] = "") -> None:
        where.run(lambda session: _version(session, output))
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cli.options import App, Argument, Command, Option, UsageError
from cli.target import Target

if TYPE_CHECKING:
    from cli.session import Session

KUSTOMIZE = ("-k", "--kustomize")


class Where(Target):
    """The values of the options that every verb has, and how a verb is run there."""

    def run(self, main: Callable[[Session], Awaitable[int | None]]) -> None:
        """Runs a command's coroutine; its return value is the exit code. Always ends in SystemExit."""
        import asyncio

        from cli.errors import report
        from cli.interrupts import interruptible
        from cli.session import Session
        from navarch.world import RealWorld

        async def body() -> int | None:
            with interruptible():
                async with Session(self, world) as session:
                    return await main(session)

        world = RealWorld(brief=True)
        code: int | None
        try:
            code = world.run(body)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read our output went away (head, less): there is nobody left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except (KeyboardInterrupt, asyncio.CancelledError):
            code = 130
        except Exception as error:
            sys.stdout.flush()
            code = report(error)
        raise SystemExit(code or 0)


# What all verbs have, by name of the parameter.
COMMON: dict[str, tuple[Any, Any]] = {
    "lab": (
        Annotated[str, Option("--lab", metavar="NAME", help="Which lab is meant.", show_default="$NAVARCH_LAB")],
        "",
    ),
    "namespace": (
        Annotated[str, Option("-n", "--namespace", metavar="NAME", help="The namespace of this request.")],
        "",
    ),
    "kubeconfig": (
        Annotated[
            str,
            Option("--kubeconfig", metavar="FILE", help="Where the cluster is.", show_default="$KUBECONFIG"),
        ],
        "",
    ),
    "context": (Annotated[str, Option("--context", metavar="NAME", help="Which context of it to use.")], ""),
}


class VerbCommand(Command):
    """A command of a :func:`verb`: it is asked for a cluster, too, and knows what people try that kubectl can."""

    def explained(self, error: UsageError, words: Sequence[str], path: str) -> str:
        if error.flag in KUSTOMIZE:
            return f"{self.name} takes no kustomization; use: kubectl kustomize DIR | {path} -f -"
        if self.name == "create" and words and not words[0].startswith("-"):
            return f"create takes files; use: kubectl create {words[0]} ... --dry-run=client -o yaml | navarch create -f -"
        return str(error)


def verb(app: App, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function whose first parameter is a :class:`Where`; the options that make it up are added."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = name or function.__name__.rstrip("_").replace("_", "-")
        command = VerbCommand(own, function, COMMON)
        plain = command.function

        def call(**arguments: Any) -> None:
            plain(Where(**{key: arguments.pop(key) for key in COMMON}), **arguments)

        command.call = call
        app.commands[own] = command
        return function

    return decorate


# Options that several verbs share.
Output = Annotated[
    str, Option("-o", "--output", metavar="FORMAT", help="json, yaml, name, jsonpath=... or wide.")
]
Selector = Annotated[str, Option("-l", "--selector", metavar="LABELS", help="Only objects with these labels.")]
FieldSelector = Annotated[
    str, Option("--field-selector", metavar="FIELDS", help="Only objects with these fields.")
]
AllNamespaces = Annotated[bool, Option("-A", "--all-namespaces", help="In all namespaces.")]
Filenames = Annotated[
    list[str] | None,
    Option("-f", "--filename", metavar="FILE", help="File, folder, URL, or - for standard input."),
]
Recursive = Annotated[bool, Option("-R", "--recursive", help="Also the folders inside a folder given with -f.")]


def complete(arguments: dict[str, Any], incomplete: str) -> list[str]:
    """Completes a TYPE or NAME that is being typed, from the server."""
    from cli.verbs.completion import resources

    return resources(arguments, incomplete)


Resources = Annotated[list[str] | None, Argument("TYPE[/NAME] [NAME...]", autocompletion=complete)]
DryRun = Annotated[str, Option("--dry-run", metavar="client|server", help="Say what would be done.")]
FieldManager = Annotated[str, Option("--field-manager", metavar="NAME", help="Who owns the fields written.")]
