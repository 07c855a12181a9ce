"""Regular expressions of schemas: RE2, as Go has them. A definition's author cannot make one that takes for ever."""

from __future__ import annotations

import functools
from collections.abc import Callable

Pattern = Callable[[str], bool]


class PatternError(ValueError):
    """The text is no regular expression."""


@functools.lru_cache(maxsize=1024)
def compile_pattern(text: str) -> Pattern:
    """A function that says whether the pattern is found in a text. Raises PatternError."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        search = re2.compile(text, options).search
    except re2.error as error:
        reason = error.args[0]
        raise PatternError(reason.decode() if isinstance(reason, bytes) else str(reason)) from None
    return lambda value: search(value) is not None
