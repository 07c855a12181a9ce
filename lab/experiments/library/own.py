"""A user's own measures: ``file.py:function`` where the function takes a Recording and gives a number.

In ``series`` the function gives pairs of time and value, or a Series.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.experiments.expressions import ExpressionError
from lab.experiments.recording import Recording
from lab.experiments.series import Series

_OWN = re.compile(r"\s*(\S+\.py):(\w+)\s*")


def named(text: Any) -> tuple[str, str] | None:
    """File and function of ``metrics.py:fragmentation``; None of an expression."""
    match = _OWN.fullmatch(text) if isinstance(text, str) else None
    return (match[1], match[2]) if match else None


def function(text: str) -> Callable[[Recording], Any] | None:
    """The function that a text names; None of an expression. Raises ExpressionError."""
    if (parts := named(text)) is None:
        return None
    path, name = Path(parts[0]), parts[1]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExpressionError(f"{path}: {error.strerror}") from None
    module_name = f"_measures_{hashlib.sha256(str(path.resolve()).encode() + content).hexdigest()[:16]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(path.resolve().parent))  # it may import its neighbours
        try:
            # Not by the loader: it takes byte code of an earlier content, of the same length and second, for this one's.
            exec(compile(content, str(path), "exec"), module.__dict__)
        except Exception as error:  # whatever a user's file raises
            del sys.modules[module_name]
            raise ExpressionError(f"{path}: {type(error).__name__}: {error}") from error
        finally:
            sys.path.pop(0)
    call = getattr(sys.modules[module_name], name, None)
    if not callable(call):
        raise ExpressionError(f"{path} has no function {name!r}")
    return call  # type: ignore[no-any-return]


def number(call: Callable[[Recording], Any], text: str, recording: Recording) -> float:
    """Raises ExpressionError unless it gives a number."""
    try:
        return float(call(recording))
    except Exception as error:  # whatever a user's function raises
        raise ExpressionError(f"{text}: {type(error).__name__}: {error}") from error


def series(call: Callable[[Recording], Any], text: str, recording: Recording) -> Series:
    """Raises ExpressionError unless it gives a Series or pairs of time and value."""
    try:
        value = call(recording)
        return value if isinstance(value, Series) else Series.of([(float(t), float(v)) for t, v in value])
    except Exception as error:  # whatever a user's function raises
        raise ExpressionError(f"{text}: {type(error).__name__}: {error}") from error
