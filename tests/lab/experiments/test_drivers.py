"""The protocol between experiments and clusters: every fault has its end, and a run needs nothing but the protocol."""

from __future__ import annotations

from lab.experiments.drivers.driver import UNDO, has_fault
from lab.experiments.drivers.virtual import Virtual
from lab.experiments.file import FAULTS


def test_a_simulation_can_do_every_fault_and_end_it() -> None:
    assert set(UNDO) == set(FAULTS)
    for fault in FAULTS:
        assert has_fault(Virtual, fault), fault
        assert not UNDO[fault] or hasattr(Virtual, UNDO[fault]), fault
