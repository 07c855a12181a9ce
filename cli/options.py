"""Commands as functions with typed parameters: what their options and arguments are, and how a command line becomes a call.

    app = App()

    @app.command()
    def greet(name: Annotated[str, Argument("NAME")], loud: Annotated[bool, Option("-l", help="Shout.")] = False) -> None:
        '''Say hello.'''

A parameter without a default must be given. Flags are understood as people write them for kubectl: ``-o=json``, ``-ojson``,
``-it``, ``--wait=false``, a bare ``--dry-run``. A framework would do it, too, and cost each command a tenth of a second.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, get_args, get_origin

HELP = ("-h", "--help")
TRUE, FALSE = ("true", "t", "1"), ("false", "f", "0")
# Options that may stand without a value, and the value that they then have.
BARE = {"--dry-run": "client", "--cascade": "background", "--server-print": "true"}

Complete = Callable[[dict[str, Any], str], list[str]]
"""(the command's parameters so far, the word that is being typed) -> what it may become"""


class UsageError(Exception):
    """A command line that cannot be understood; the text says why. ``flag`` is the option that is meant, if one is."""

    def __init__(self, text: str, flag: str = "") -> None:
        super().__init__(text)
        self.flag = flag


@dataclass(frozen=True)
class _Declared:
    """The declaration of a parameter in its annotation."""

    flags: tuple[str, ...] = ()  # none: it is an argument
    metavar: str = ""
    help: str = ""
    min: int | None = None
    envvar: str = ""
    show_default: str | bool = ""
    autocompletion: Complete | None = None
    option: bool = True


def Option(*flags: str, **said: Any) -> _Declared:
    """An option; without flags it is named after the parameter. ``--a/--no-a`` is a flag that can be taken back."""
    return _Declared(flags, **said)


def Argument(metavar: str = "", **said: Any) -> _Declared:
    """A word that stands by its place."""
    return _Declared((), metavar, option=False, **said)


@dataclass
class Parameter:
    """One parameter of a command's function, as the command line sees it."""

    name: str
    kind: type
    declared: _Declared
    default: Any = None
    many: bool = False
    required: bool = False
    opts: list[str] = field(default_factory=list)
    secondary_opts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, annotation: Any, default: Any, required: bool) -> Parameter:
        base, declared = get_args(annotation)[:2]
        if isinstance(base, UnionType):
            base = next(a for a in get_args(base) if a is not type(None))
        many = get_origin(base) is list
        out = cls(name, get_args(base)[0] if many else base, declared, default, many, required)
        if declared.option:
            flags = declared.flags or ("--" + name.rstrip("_").replace("_", "-"),)
            for flag in flags:
                positive, _, negative = flag.partition("/")
                out.opts.append(positive)
                out.secondary_opts += [negative] if negative else []
        return out

    @property
    def is_flag(self) -> bool:
        return self.kind is bool

    @property
    def metavar(self) -> str:
        return self.declared.metavar or ("" if self.is_flag else self.kind.__name__.upper())

    def convert(self, text: str, flag: str) -> Any:
        if self.kind is bool:
            if text.lower() not in (*TRUE, *FALSE):
                raise UsageError(f'invalid argument "{text}" for "{flag}": say true or false', flag)
            return text.lower() in TRUE
        if self.kind is not int:
            return self.kind(text)
        try:
            value = int(text)
        except ValueError:
            raise UsageError(f'invalid argument "{text}" for "{flag}": say a whole number', flag) from None
        if self.declared.min is not None and value < self.declared.min:
            raise UsageError(f'invalid argument "{text}" for "{flag}": the least is {self.declared.min}', flag)
        return value

    def unsaid(self) -> Any:
        """Its value if the command line says nothing of it."""
        if self.declared.envvar and os.environ.get(self.declared.envvar):
            return self.convert(os.environ[self.declared.envvar], self.declared.envvar)
        return self.default


class Command:
    """A function that a command line calls. ``extra`` parameters, by name, are asked for besides its own."""

    def __init__(self, name: str, function: Callable[..., None], extra: Mapping[str, tuple[Any, Any]] | None = None) -> None:
        self.name, self.function, self.call = name, function, function
        self.help = (function.__doc__ or "").strip()
        self.extra = dict(extra or {})
        self._params: list[Parameter] | None = None

    @property
    def params(self) -> list[Parameter]:
        if self._params is None:
            self._params = self._own() + [Parameter.of(n, kind, default, False) for n, (kind, default) in self.extra.items()]
        return self._params

    def _own(self) -> list[Parameter]:
        code = self.function.__code__
        names = code.co_varnames[: code.co_argcount]
        defaults = self.function.__defaults__ or ()
        first = len(names) - len(defaults)
        out = []
        for position, name in enumerate(names):
            annotation = self.function.__annotations__[name]
            if isinstance(annotation, str):
                annotation = eval(annotation, self.function.__globals__)
            if not hasattr(annotation, "__metadata__"):
                continue  # it is not asked for, but put together from others (cli/verb.py)
            has_default = position >= first
            out.append(Parameter.of(name, annotation, defaults[position - first] if has_default else None, not has_default))
        return out

    def parse(self, words: Sequence[str], strict: bool = True) -> dict[str, Any]:
        """The parameters' values. Raises UsageError; if not ``strict``, what is wrong or missing is passed over."""
        values: dict[str, Any] = {}
        places: list[str] = []
        queue = list(words)
        flags = {flag: p for p in self.params for flag in (*p.opts, *p.secondary_opts)}
        while queue:
            word = queue.pop(0)
            if word == "--":
                places += queue
                break
            if len(word) < 2 or not word.startswith("-"):
                places.append(word)
                continue
            try:
                self._option(word, queue, flags, values)
            except UsageError:
                if strict:
                    raise
        self._places(places, values, strict)
        for parameter in self.params:
            if parameter.name not in values:
                if parameter.required and strict:
                    what = f"flag {parameter.opts[-1]}" if parameter.opts else f"argument {parameter.metavar}"
                    raise UsageError(f"missing {what}")
                values[parameter.name] = parameter.unsaid()
        return values

    def _option(self, word: str, queue: list[str], flags: Mapping[str, Parameter], values: dict[str, Any]) -> None:
        name, equals, text = word.partition("=")
        if name not in flags and not word.startswith("--") and len(word) > 2:  # -ojson, -it, -n=x
            name, equals, text = word[:2], "=", word[2:].removeprefix("=")
            if name in flags and flags[name].is_flag:
                queue.insert(0, "-" + text)
                equals, text = "", ""
        parameter = flags.get(name)
        if parameter is None:
            raise UsageError(f"unknown flag: {name}" if name.startswith("--") else f"unknown shorthand flag: {name}", name)
        if parameter.is_flag:
            value = parameter.convert(text, name) if equals else True
            values[parameter.name] = not value if name in parameter.secondary_opts else value
            return
        if not equals:
            if name in BARE:
                text = BARE[name]
            elif not queue:
                raise UsageError(f"flag needs an argument: {name}", name)
            else:
                text = queue.pop(0)
        value = parameter.convert(text, name)
        if parameter.many:
            values.setdefault(parameter.name, []).append(value)
        else:
            values[parameter.name] = value

    def _places(self, words: list[str], values: dict[str, Any], strict: bool) -> None:
        places = [p for p in self.params if not p.opts]
        for position, parameter in enumerate(places):
            if parameter.many:
                after = len(places) - position - 1
                own_words = words[: len(words) - after] if after else words[:]
                if parameter.required and not own_words and strict:
                    raise UsageError(f"missing argument {parameter.metavar}")
                if own_words:
                    values[parameter.name] = [parameter.convert(word, parameter.metavar) for word in own_words]
                del words[: len(own_words)]
            elif words:
                values[parameter.name] = parameter.convert(words.pop(0), parameter.metavar)
        if words and strict:
            raise UsageError(f'unexpected argument: "{words[0]}"')

    def run(self, words: Sequence[str], path: str) -> None:
        """Calls the function with what the words say; complaints end in SystemExit. Raises HelpAsked."""
        before = list(words[: words.index("--")] if "--" in words else words)
        if any(word in HELP for word in before):
            raise HelpAsked(self, path)
        try:
            values = self.parse(words)
        except UsageError as error:
            complain(self.explained(error, words, path), path)
        self.call(**values)

    def explained(self, error: UsageError, words: Sequence[str], path: str) -> str:
        """Explains what is wrong with a command line."""
        return str(error)


class App:
    """A group of commands."""

    def __init__(self, help: str = "") -> None:
        self.help = help
        self.commands: dict[str, Command | App] = {}

    def command(self, name: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Makes a function a command, named as the function if nothing else is said."""

        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            own = name or function.__name__.rstrip("_").replace("_", "-")
            self.commands[own] = Command(own, function)
            return function

        return decorate

    def add_group(self, group: App, name: str) -> None:
        self.commands[name] = group

    def run(self, words: Sequence[str], path: str) -> None:
        if not words or words[0] in HELP:
            raise HelpAsked(self, path)
        command = self.commands.get(words[0])
        if command is None:
            import difflib

            near = difflib.get_close_matches(words[0], self.commands, 1)
            complain(f'unknown command "{words[0]}" for "{path}"' + (f"; did you mean {near[0]}?" if near else ""), path)
        command.run(words[1:], f"{path} {words[0]}")


class HelpAsked(Exception):
    """Signals that help is wanted about a command, or a group of them, that is written as ``path``."""

    def __init__(self, about: Command | App, path: str) -> None:
        super().__init__()
        self.about, self.path = about, path


def complain(text: str, path: str) -> NoReturn:
    print(f"error: {text}\nSee '{path} --help' for usage.", file=sys.stderr)
    raise SystemExit(1)


def completions(app: App, words: Sequence[str]) -> list[str]:
    """The texts that the last of the words may become."""
    *before, incomplete = words or [""]
    current: App | Command = app
    for position, word in enumerate(before):
        if isinstance(current, Command):
            return _of_command(current, before[position:], incomplete)
        if word not in current.commands:
            return []
        current = current.commands[word]
    if isinstance(current, Command):
        return _of_command(current, [], incomplete)
    return [name for name in current.commands if name.startswith(incomplete)]


def _of_command(command: Command, before: Sequence[str], incomplete: str) -> list[str]:
    flags = {flag: p for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    last = flags.get(before[-1]) if before else None
    if last is not None and not last.is_flag and before[-1] not in BARE:
        choices = last.metavar.split("|") if "|" in last.metavar else []
        return [word for word in choices if word.islower() and word.startswith(incomplete)]
    if incomplete.startswith("-"):
        return sorted(flag for flag in [*flags, "--help"] if flag.startswith(incomplete) and len(flag) > 2)
    complete = next((p.declared.autocompletion for p in command.params if p.declared.autocompletion), None)
    return complete(command.parse(before, strict=False), incomplete) if complete else []


__all__ = ["App", "Argument", "Command", "Option", "Parameter", "Path", "UsageError", "completions"]
