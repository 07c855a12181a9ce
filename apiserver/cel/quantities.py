"""Kubernetes' functions on quantities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from navarch.api import quantity
from navarch.api.quantity import parse


def quantity_of(text: str) -> dict[str, str]:
    return {"quantity": quantity.canonical(text)}


def amount(value: Any) -> Any:
    return parse(value["quantity"]) if isinstance(value, dict) else value


def _quantity(number: Any) -> dict[str, str]:
    return {"quantity": quantity.canonical(str(number) if isinstance(number, int) else format(float(number), "f"))}


def add(a: Any, b: Any) -> dict[str, str]:
    return _quantity(amount(a) + amount(b))


def sub(a: Any, b: Any) -> dict[str, str]:
    return _quantity(amount(a) - amount(b))


def _whole(value: Any) -> int:
    number = amount(value)
    if number != int(number):
        raise ValueError("cannot convert value to integer")
    return int(number)


PARTS: dict[str, Callable[[Any], Any]] = {
    "isInteger": lambda a: amount(a) == int(amount(a)),
    "asInteger": _whole,
    "asApproximateFloat": lambda a: float(amount(a)),
    "sign": lambda a: (amount(a) > 0) - (amount(a) < 0),
}
