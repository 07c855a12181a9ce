"""No object that the schema allows ends a component, is answered with a 5xx, or keeps others from converging."""

from __future__ import annotations

import pytest

from tests.fuzz.everything import play
from tests.fuzz.support import ROUNDS


@pytest.mark.parametrize("webhook", [False, True])
def test_random_objects_stop_nobody(webhook: bool) -> None:
    """NAVARCH_FUZZ=N: so many objects. What goes wrong is told with the objects that it names."""
    run, wrong = play(11, ROUNDS or 250, webhook=webhook)
    assert run.answers[200] > run.made / 4
    assert not wrong, "\n\n".join(wrong[:5])
