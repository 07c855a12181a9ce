"""Settings of a component by ``--set NAME=VALUE``: a table of names and types, the same way in every component.

A component reads its settings through its table; `navarch up` asks the same table before it starts or changes anything. So
what is refused is refused early, and in the same words.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from navarch.api import quantity
from navarch.api.durations import parse_duration


class SettingError(ValueError):
    """A setting that does not exist, or has a value that it cannot have; the text says which and what would do."""


@dataclass(frozen=True)
class Kind:
    """A type of values: what is expected, in words, and how text becomes one. ``read`` raises ValueError."""

    expected: str
    read: Callable[[str], Any]
    file: bool = False  # whether the value is the path of a file


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return parse_duration(text)


def _at_least(read: Callable[[str], Any], least: float, strictly: bool = False) -> Callable[[str], Any]:
    def checked(text: str) -> Any:
        value = read(text)
        if not (value > least if strictly else value >= least):  # NaN is neither
            raise ValueError(text)
        return value

    return checked


def _fraction(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise ValueError(text)
    return float(text)


def _file(text: str) -> str:
    if text:
        with Path(text).open("rb"):
            pass
    return text


def _quantity(text: str) -> str:
    if text and quantity.value(text) <= 0:
        raise ValueError(text)
    return text


TEXT = Kind("text", str)
BOOLEAN = Kind("true or false", _boolean)
COUNT = Kind("a whole number, 0 or more", _at_least(int, 0))
POSITIVE = Kind("a whole number above 0", _at_least(int, 0, strictly=True))
NUMBER = Kind("a number, 0 or more", _at_least(float, 0.0))
FRACTION = Kind("a number from 0 to 1", _fraction)
DURATION = Kind("a duration such as 30s or 1h30m", _at_least(parse_duration, 0.0))
POSITIVE_DURATION = Kind("a duration above 0 such as 30s", _at_least(parse_duration, 0.0, strictly=True))
SECONDS = Kind("seconds, or a duration such as 30m", _at_least(_seconds, 0.0))  # where Kubernetes' setting is a number
POSITIVE_SECONDS = Kind("seconds above 0, or a duration such as 30s", _at_least(_seconds, 0.0, strictly=True))
LIST = Kind("words separated by commas", lambda text: tuple(word for word in text.split(",") if word))
FILE = Kind("a file that can be read", _file, file=True)
QUANTITY = Kind("a quantity such as 500m or 2Gi", _quantity)


def choice(*words: str) -> Kind:
    """One of some words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return Kind("one of " + ", ".join(words), read)


class Settings:
    """The settings of one component, by name as in its flags."""

    def __init__(self, component: str, kinds: Mapping[str, Kind]) -> None:
        self.component = component
        self.kinds = dict(kinds)

    def read(self, text: str) -> tuple[str, Any]:
        """Name and value of ``NAME=VALUE``. Raises SettingError."""
        name, equals, value = (part.strip() for part in text.partition("="))
        kind = self.kinds.get(name)
        if kind is None:
            raise SettingError(self._unknown(name))
        if not equals:
            raise SettingError(f"{self.component}.{name} needs a value: {kind.expected}")
        try:
            return name, kind.read(value)
        except OSError as error:
            raise SettingError(f"{self.component}.{name}={value}: {error.strerror}") from None
        except ValueError:
            raise SettingError(f'{self.component}.{name}="{value}": expected {kind.expected}') from None

    def read_all(self, texts: Iterable[str]) -> dict[str, Any]:
        """Values by name; the last of several counts. Raises SettingError with everything that is wrong."""
        values: dict[str, Any] = {}
        wrong: list[str] = []
        for text in texts:
            try:
                name, value = self.read(text)
                values[name] = value
            except SettingError as error:
                wrong.append(str(error))
        if wrong:
            raise SettingError("; ".join(wrong))
        return values

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.kinds, 1)
        hint = f'did you mean "{near[0]}"?' if near else "it has: " + ", ".join(sorted(self.kinds))
        return f'{self.component} has no setting "{name}"; {hint}'
