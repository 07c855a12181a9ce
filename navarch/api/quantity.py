"""Quantities such as ``100m``, ``1.5Gi`` or ``12e6``: exact numbers with a way of writing them.

Inside, a quantity is a whole number of nanos (the finest that Kubernetes keeps; finer amounts round away from zero)
and the family of suffixes it was written with. Everything is exact integer arithmetic and cached by text.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction
from typing import Literal

Quantity = str | int | float
Format = Literal["BinarySI", "DecimalSI", "DecimalExponent"]

NANO = 10**9
MAXIMUM = (2**63 - 1) * NANO
"""Larger amounts are cut to this."""

FORMAT_WRONG = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
NUMBER_WRONG = "unable to parse numeric part of quantity"
SUFFIX_WRONG = "unable to parse quantity's suffix"

_split = re.compile(r"([+-]?)([0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)").fullmatch
_exponent = re.compile(r"[eE]([-+]?[0-9]+)").fullmatch
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX = {power: suffix for suffix, power in _DECIMAL.items()}
_BINARY_SUFFIX = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]


class QuantityError(ValueError):
    """Not a quantity; the message is Kubernetes'."""


def _away(numerator: int, denominator: int) -> int:
    """Quotient rounded away from zero."""
    return -(-numerator // denominator) if numerator >= 0 else numerator // denominator


@functools.lru_cache(maxsize=8192)
def _parse(text: str) -> tuple[int, Format]:
    match = _split(text)
    if not match:
        raise QuantityError(FORMAT_WRONG)
    sign, number, suffix = match.groups()
    whole, _, part = number.partition(".")
    if "." in part or not (whole or part):
        raise QuantityError(NUMBER_WRONG)
    family: Format
    digits = int(whole + part or "0")
    power, base2 = -len(part), 0
    if suffix in _DECIMAL:
        power, family = power + _DECIMAL[suffix], "DecimalSI"
    elif suffix in _BINARY:
        base2, family = _BINARY[suffix], "BinarySI"
    elif match := _exponent(suffix):
        # An exponent far outside the range cannot matter: cut it, so that nobody makes us compute 10 ** 10 ** 9.
        power, family = power + max(-400, min(400, int(match[1]))), "DecimalExponent"
    else:
        raise QuantityError(SUFFIX_WRONG)
    power += 9
    digits <<= base2
    nanos = digits * 10**power if power >= 0 else _away(digits, 10**-power)
    nanos = min(nanos, MAXIMUM)
    return (-nanos if sign == "-" else nanos), family


def _text(quantity: Quantity) -> str:
    if isinstance(quantity, str):
        return quantity.strip()
    if isinstance(quantity, bool):
        raise QuantityError(FORMAT_WRONG)
    return repr(quantity)


def nanos(quantity: Quantity) -> int:
    """The quantity in billionths, exact. Raises QuantityError."""
    return _parse(_text(quantity))[0]


def family(quantity: Quantity) -> Format:
    """Which suffixes the quantity was written with."""
    return _parse(_text(quantity))[1]


def parse(quantity: Quantity) -> Fraction:
    """The exact number. Raises QuantityError (a ValueError)."""
    return _fraction(_text(quantity))


@functools.lru_cache(maxsize=8192)
def _fraction(text: str) -> Fraction:
    return Fraction(_parse(text)[0], NANO)


@functools.lru_cache(maxsize=8192)
def _value(text: str) -> int:
    return _away(_parse(text)[0], NANO)


@functools.lru_cache(maxsize=8192)
def _milli(text: str) -> int:
    return _away(_parse(text)[0], 10**6)


def value(quantity: Quantity) -> int:
    """Whole units (bytes, cores, pods), rounded up."""
    return _value(_text(quantity))


def milli(quantity: Quantity) -> int:
    """Thousandths (millicores), rounded up."""
    return _milli(_text(quantity))


def format_nanos(amount: int, family: Format = "DecimalSI") -> str:
    """The canonical text: no fraction digits, the largest suffix that leaves a whole number."""
    if amount == 0:
        return "0"
    if family == "BinarySI" and (abs(amount) < 1024 * NANO or amount % NANO):
        family = "DecimalSI"
    if family == "BinarySI":
        number, times = amount // NANO, 0
        while number % 1024 == 0 and times < 6:
            number, times = number // 1024, times + 1
        return f"{number}{_BINARY_SUFFIX[times]}"
    number, power = amount, -9
    while number % 1000 == 0 and power < 18:
        number, power = number // 1000, power + 3
    if family == "DecimalExponent":
        return f"{number}e{power}" if power else str(number)
    return f"{number}{_DECIMAL_SUFFIX[power]}"


@functools.lru_cache(maxsize=8192)
def _canonical(text: str, finest: int) -> str:
    amount, family = _parse(text)
    return format_nanos(_away(amount, finest) * finest, family)


def canonical(quantity: Quantity) -> str:
    """How Kubernetes writes the quantity back: ``0.5`` -> ``500m``, ``1024Mi`` -> ``1Gi``. Raises QuantityError."""
    return _canonical(_text(quantity), 1)


def canonical_milli(quantity: Quantity) -> str:
    """As :func:`canonical`, rounded up to thousandths: so a ResourceList (requests, capacity...) is stored."""
    return _canonical(_text(quantity), 10**6)


def from_value(amount: int, family: Format = "DecimalSI") -> str:
    """Text of whole units; use BinarySI for bytes."""
    return format_nanos(amount * NANO, family)


def from_milli(amount: int, family: Format = "DecimalSI") -> str:
    """Text of thousandths."""
    return format_nanos(amount * 10**6, family)


def add(left: Quantity, right: Quantity) -> str:
    """The sum; written like ``left``, or like ``right`` if left is zero."""
    (a, how), (b, other) = _parse(_text(left)), _parse(_text(right))
    return format_nanos(a + b, how if a else other)


def subtract(left: Quantity, right: Quantity) -> str:
    """The difference; written like ``left``, or like ``right`` if left is zero."""
    (a, how), (b, other) = _parse(_text(left)), _parse(_text(right))
    return format_nanos(a - b, how if a else other)


def compare(left: Quantity, right: Quantity) -> int:
    """-1, 0 or 1."""
    a, b = nanos(left), nanos(right)
    return (a > b) - (a < b)
