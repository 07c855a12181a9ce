"""What a property test prints when it fails: the values, and the line that repeats the failure. Loaded by conftest.py."""

from __future__ import annotations

import hypothesis.core
from hypothesis import settings
from hypothesis.vendor import pretty

# Without print_blob the line comes only where the variable CI is set.
settings.register_profile("navarch", parent=settings(), print_blob=True)
settings.load_profile("navarch")


def pytest_runtest_setup() -> None:
    # schemathesis, once imported, has hypothesis print "n=" without the value, in the tests of everybody else, too.
    hypothesis.core.RepresentationPrinter = pretty.RepresentationPrinter  # type: ignore[attr-defined]
