"""Explains why a text is not JSON, in the words of Go's decoder: clients show them to people.

Only called for texts that a fast decoder has refused already, so it is short rather than fast.
"""

from __future__ import annotations

import re

_SPACE = re.compile(r"[ \t\r\n]*").match
_STRING = re.compile(r'[^"\\\x00-\x1f]*').match
_DIGITS = re.compile(r"[0-9]*").match
_HEX = frozenset("0123456789abcdefABCDEF")


class _Syntax(Exception):
    pass


def syntax_error(text: str) -> str:
    """Go's message for the first mistake; empty if there is none."""
    try:
        end = _Scanner(text).value(0)
        end = _SPACE(text, end).end()  # type: ignore[union-attr]
        if end < len(text):
            raise _wrong(text, end, "after top-level value")
    except _Syntax as error:
        return str(error)
    except RecursionError:
        return "exceeded max depth"
    return ""


def _wrong(text: str, at: int, where: str) -> _Syntax:
    if at >= len(text):
        return _Syntax("unexpected end of JSON input")
    c = text[at]
    special = {"'": r"'\''", '"': "'\"'", "\n": r"'\n'", "\r": r"'\r'", "\t": r"'\t'", "\\": r"'\\'"}
    quoted = special.get(c) or (f"'{c}'" if c.isprintable() else rf"'\x{ord(c):02x}'")
    return _Syntax(f"invalid character {quoted} {where}")


class _Scanner:
    """Each method takes where its part begins and gives where it ends. Raises _Syntax."""

    def __init__(self, text: str) -> None:
        self.text = text

    def space(self, at: int) -> int:
        return _SPACE(self.text, at).end()  # type: ignore[union-attr]

    def at(self, at: int) -> str:
        return self.text[at : at + 1]

    def value(self, at: int) -> int:
        at = self.space(at)
        c = self.at(at)
        if c == "{":
            return self.object(at + 1)
        if c == "[":
            return self.array(at + 1)
        if c == '"':
            return self.string(at + 1)
        for word in ("true", "false", "null"):
            if c == word[0]:
                return self.literal(at, word)
        if c == "-" or (c.isascii() and c.isdigit()):
            return self.number(at)
        raise _wrong(self.text, at, "looking for beginning of value")

    def object(self, at: int) -> int:
        at = self.space(at)
        if self.at(at) == "}":
            return at + 1
        while True:
            at = self.space(at)
            if self.at(at) != '"':
                raise _wrong(self.text, at, "looking for beginning of object key string")
            at = self.space(self.string(at + 1))
            if self.at(at) != ":":
                raise _wrong(self.text, at, "after object key")
            at = self.space(self.value(at + 1))
            if self.at(at) == "}":
                return at + 1
            if self.at(at) != ",":
                raise _wrong(self.text, at, "after object key:value pair")
            at += 1

    def array(self, at: int) -> int:
        at = self.space(at)
        if self.at(at) == "]":
            return at + 1
        while True:
            at = self.space(self.value(at))
            if self.at(at) == "]":
                return at + 1
            if self.at(at) != ",":
                raise _wrong(self.text, at, "after array element")
            at += 1

    def string(self, at: int) -> int:
        while True:
            at = _STRING(self.text, at).end()  # type: ignore[union-attr]
            c = self.at(at)
            if c == '"':
                return at + 1
            if c != "\\":
                raise _wrong(self.text, at, "in string literal")
            c = self.at(at + 1)
            if c == "u":
                for digit in range(at + 2, at + 6):
                    if self.at(digit) not in _HEX:
                        raise _wrong(self.text, digit, r"in \u hexadecimal character escape")
                at += 6
            elif c and c in '"\\/bfnrt':
                at += 2
            else:
                raise _wrong(self.text, at + 1, "in string escape code")

    def literal(self, at: int, word: str) -> int:
        for i, c in enumerate(word):
            if self.at(at + i) != c:
                raise _wrong(self.text, at + i, f"in literal {word} (expecting '{c}')")
        return at + len(word)

    def number(self, at: int) -> int:
        if self.at(at) == "-":
            at = self._digit(at + 1, "in numeric literal")
        else:
            at += 1
        if self.text[at - 1] != "0":
            at = _DIGITS(self.text, at).end()  # type: ignore[union-attr]
        if self.at(at) == ".":
            at = self._digits(at + 1, "after decimal point in numeric literal")
        if self.at(at) in ("e", "E"):
            at += 1
            if self.at(at) in ("+", "-"):
                at += 1
            at = self._digits(at, "in exponent of numeric literal")
        return at

    def _digit(self, at: int, where: str) -> int:
        c = self.at(at)
        if not (c.isascii() and c.isdigit()):
            raise _wrong(self.text, at, where)
        return at + 1

    def _digits(self, at: int, where: str) -> int:
        return _DIGITS(self.text, self._digit(at, where)).end()  # type: ignore[union-attr]
