"""What turns a function into a kubectl-like verb: the options that every verb has, kubectl's ways of writing flags,
and running a coroutine against the cluster with errors in kubectl's words.

    @verb(app)
    def version(where: Where, output: Annotated[str, OUTPUT] = "") -> None:
        where.run(lambda session: _version(session, output))
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from cli.target import Target

if TYPE_CHECKING:
    from cli.session import Session

# Options that may stand without a value, and the value that they then have.
BARE = {"--dry-run": "client", "--cascade": "background", "--server-print": "true"}
KUSTOMIZE = ("-k", "--kustomize")


class Where(Target):
    """What the options that every verb has say, and how a verb is run there."""

    def run(self, main: Callable[[Session], Awaitable[int | None]]) -> None:
        """Runs a command's coroutine; its return value is the exit code. Always ends in SystemExit."""
        from cli.errors import report
        from cli.session import Session
        from navarch.world import RealWorld

        async def body() -> int | None:
            async with Session(self, world) as session:
                return await main(session)

        world = RealWorld()
        code: int | None
        try:
            code = world.run(body)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read our output went away (head, less): there is nobody left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except KeyboardInterrupt:
            code = 130
        except Exception as error:
            sys.stdout.flush()
            code = report(error)
        raise SystemExit(code or 0)


# What all verbs have, by name of the parameter.
COMMON: dict[str, tuple[Any, Any]] = {
    "lab": (
        Annotated[str, typer.Option("--lab", metavar="NAME", help="Which lab is meant.", show_default="$NAVARCH_LAB")],
        "",
    ),
    "namespace": (
        Annotated[str, typer.Option("-n", "--namespace", metavar="NAME", help="The namespace of this request.")],
        "",
    ),
    "kubeconfig": (
        Annotated[
            str,
            typer.Option("--kubeconfig", metavar="FILE", help="Where the cluster is.", show_default="$KUBECONFIG"),
        ],
        "",
    ),
    "context": (Annotated[str, typer.Option("--context", metavar="NAME", help="Which context of it to use.")], ""),
}


class VerbCommand(typer.core.TyperCommand):
    """A command that understands flags as people write them for kubectl: ``-o=json``, ``--wait=false``, a bare
    ``--dry-run``; and that ends with 1 and one line when they are wrong."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, self._normalised(args))
        except Exception as error:
            message = getattr(error, "format_message", None)
            if message is None:
                raise
            text = message().rstrip(".").replace("No such option:", "unknown flag:")
            if getattr(error, "option_name", "") in KUSTOMIZE:
                text = f"{ctx.info_name} takes no kustomization; use: kubectl kustomize DIR | {ctx.command_path} -f -"
            if ctx.info_name == "create" and args and not args[0].startswith("-"):
                text = f"create takes files; use: kubectl create {args[0]} ... --dry-run=client -o yaml | navarch create -f -"
            print(f"error: {text}\nSee '{ctx.command_path} --help' for usage.", file=sys.stderr)
            raise SystemExit(1) from None

    def _normalised(self, args: list[str]) -> list[str]:
        flags = {
            name: param for param in self.params for name in getattr(param, "opts", ()) if getattr(param, "is_flag", 0)
        }
        out: list[str] = []
        for index, arg in enumerate(args):
            if arg == "--":
                return out + args[index:]
            name, equals, value = arg.partition("=")
            if equals and re.fullmatch("-[A-Za-z]", name) and name not in flags:
                out += [name, value]
            elif equals and name in flags and value.lower() in ("true", "false", "1", "0", "t", "f"):
                if value.lower() in ("true", "1", "t"):
                    out.append(name)
                else:
                    out += flags[name].secondary_opts[:1]
            elif not equals and name in BARE:
                out.append(f"{name}={BARE[name]}")
            else:
                out.append(arg)
        return out


def verb(app: typer.Typer, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function whose first parameter is a :class:`Where`; the options that make it up are added."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def command(**given: Any) -> None:
            where = Where(**{key: given.pop(key) for key in COMMON})
            function(where, **given)

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        common = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for key, (kind, default) in COMMON.items()
        ]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + common
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        command.__doc__, command.__name__ = function.__doc__, function.__name__
        app.command(name or function.__name__.rstrip("_"), cls=VerbCommand)(command)
        return function

    return decorate


# Options that several verbs share.
Output = Annotated[
    str, typer.Option("-o", "--output", metavar="FORMAT", help="json, yaml, name, jsonpath=... or wide.")
]
Selector = Annotated[str, typer.Option("-l", "--selector", metavar="LABELS", help="Only objects with these labels.")]
FieldSelector = Annotated[
    str, typer.Option("--field-selector", metavar="FIELDS", help="Only objects with these fields.")
]
AllNamespaces = Annotated[bool, typer.Option("-A", "--all-namespaces", help="In all namespaces.")]
Filenames = Annotated[
    list[str] | None,
    typer.Option("-f", "--filename", metavar="FILE", help="File, folder, URL, or - for standard input."),
]
Recursive = Annotated[bool, typer.Option("-R", "--recursive", help="Also the folders inside a folder given with -f.")]


def complete(ctx: typer.Context, incomplete: str) -> list[str]:
    """What a TYPE or NAME that is being typed may become, from the server."""
    from cli.verbs.completion import resources

    return resources(ctx.params, incomplete)


Resources = Annotated[list[str] | None, typer.Argument(metavar="TYPE[/NAME] [NAME...]", autocompletion=complete)]
DryRun = Annotated[str, typer.Option("--dry-run", metavar="client|server", help="Say what would be done.")]
FieldManager = Annotated[str, typer.Option("--field-manager", metavar="NAME", help="Who owns the fields written.")]
