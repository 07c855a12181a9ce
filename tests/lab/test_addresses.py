"""Address ranges: one a lab, whoever comes and goes at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import addresses
from lab.addresses import claim_index, holds_index, release_index
from lab.paths import LabError


@pytest.fixture
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(addresses, "index_directory", lambda: tmp_path / "claims")
    monkeypatch.setattr(addresses, "routed_networks", list)
    made = [tmp_path / name for name in ("a", "b")]
    for path in made:
        path.mkdir()
    return [str(p) for p in made]


def test_labs_that_start_at_the_same_time_get_different_ranges(labs: list[str]) -> None:
    a, b = labs  # neither has written its lab.json yet
    assert claim_index(a) != claim_index(b)
    assert claim_index(a) == claim_index(a), "and keep theirs"


def test_the_range_of_a_deleted_home_is_free_again(labs: list[str]) -> None:
    a, b = labs
    index = claim_index(a)
    Path(a).rmdir()
    assert claim_index(b) == index


def test_a_lab_that_lost_its_range_takes_no_other(labs: list[str]) -> None:
    a, b = labs
    index = claim_index(a)
    release_index(a)  # a reboot
    assert claim_index(b) == index
    assert not holds_index(a, index)
    with pytest.raises(LabError, match="in use"):
        claim_index(a, index)
    release_index(b)
    assert claim_index(a, index) == index
