"""Reading a Dockerfile (Containerfile): text -> instructions. What is not supported is an error that names its line.

Supported: FROM (several stages), COPY, ADD (local files; archives are unpacked), RUN, ENV, CMD, ENTRYPOINT, WORKDIR,
USER, EXPOSE, LABEL, ARG, STOPSIGNAL, VOLUME, SHELL, MAINTAINER (ignored); continuation lines, comments, variables.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

KEYWORDS = (
    "FROM", "COPY", "ADD", "RUN", "ENV", "CMD", "ENTRYPOINT", "WORKDIR", "USER", "EXPOSE", "LABEL", "ARG", "STOPSIGNAL",
    "VOLUME", "SHELL", "MAINTAINER",
)  # fmt: skip
_VARIABLE = re.compile(r"\\\$|\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?::(?P<kind>[-+])(?P<word>[^}]*))?\})")


class BuildError(Exception):
    """The image cannot be built; the message says where and why."""


@dataclass(frozen=True)
class Instruction:
    """One instruction. ``json`` is set for the exec form; ``text`` is everything after keyword and flags."""

    keyword: str
    text: str
    line: int
    flags: Mapping[str, str] = field(default_factory=dict)
    json: tuple[str, ...] | None = None

    def error(self, message: str) -> BuildError:
        return BuildError(f"line {self.line}: {self.keyword}: {message}")

    def words(self) -> list[str]:
        """The arguments: of the exec form, or as a shell would split them."""
        if self.json is not None:
            return list(self.json)
        try:
            return shlex.split(self.text)
        except ValueError as error:
            raise self.error(str(error)) from error

    def pairs(self) -> list[tuple[str, str]]:
        """``A=b C="d e"``, or the old form ``A b c`` (one pair)."""
        words = self.words()
        if words and "=" not in words[0]:
            name, _, value = self.text.partition(" ")
            return [(name, value.strip())]
        pairs = []
        for word in words:
            name, equals, value = word.partition("=")
            if not equals:
                raise self.error(f"expected NAME=VALUE, not {word!r}")
            pairs.append((name, value))
        return pairs


def parse(text: str) -> list[Instruction]:
    """The instructions of a file, in order. Raises BuildError."""
    instructions: list[Instruction] = []
    pending, start = "", 0
    for number, raw in enumerate([*text.splitlines(), ""], 1):
        line = raw.strip()
        if line.startswith("#") or (not line and pending and number <= len(text.splitlines())):
            continue
        if not pending:
            start = number
        if line.endswith("\\"):
            pending += line[:-1].rstrip() + " "
            continue
        whole, pending = (pending + line).strip(), ""
        if whole:
            instructions.append(_instruction(whole, start))
    return instructions


def _instruction(line: str, number: int) -> Instruction:
    keyword, _, rest = line.partition(" ")
    keyword, rest = keyword.upper(), rest.strip()
    if keyword not in KEYWORDS:
        raise BuildError(f"line {number}: unsupported instruction {keyword}")
    flags: dict[str, str] = {}
    while keyword in ("COPY", "ADD", "FROM", "RUN") and rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        name, _, value = flag[2:].partition("=")
        if name == "exclude" and name in flags:
            value = f"{flags[name]}\n{value}"  # may be given more than once
        flags[name], rest = value, rest.strip()
    if "<<" in rest and keyword in ("RUN", "COPY", "ADD") and re.search(r"<<-?[\"']?\w+", rest):
        raise BuildError(f"line {number}: {keyword}: here-documents are not supported")
    exec_form = None
    if rest.startswith("["):
        try:
            value_ = json.loads(rest)
        except ValueError:
            value_ = None
        if isinstance(value_, list) and all(isinstance(item, str) for item in value_):
            exec_form = tuple(value_)
    return Instruction(keyword, rest, number, flags, exec_form)


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """Replaces ``$NAME``, ``${NAME}``, ``${NAME:-word}`` and ``${NAME:+word}``; ``\\$`` is a dollar sign."""

    def value(match: re.Match[str]) -> str:
        if match.group() == "\\$":
            return "$"
        content = variables.get(match["plain"] or match["name"], "")
        if match["kind"] == "-":
            return content or match["word"]
        if match["kind"] == "+":
            return match["word"] if content else ""
        return content

    return _VARIABLE.sub(value, text)


def shell_form(instruction: Instruction, shell: Sequence[str]) -> list[str]:
    """The command of CMD, ENTRYPOINT or RUN: as it is in exec form, else by a shell."""
    return list(instruction.json) if instruction.json is not None else [*shell, instruction.text]
