"""Samples of variants: equal for equal words, and other commits come round to all."""

from __future__ import annotations

from tests.sampling import ALL, sample, word

VARIANTS = ["a", "b", "c", "d", "e"]


def test_a_word_chooses_the_same_in_the_same_order() -> None:
    chosen = sample(VARIANTS, 2, "x", "4f2a")
    assert chosen == sample(VARIANTS, 2, "x", "4f2a") == sorted(chosen) and len(set(chosen)) == 2
    assert sample(VARIANTS, 5, "x", "4f2a") == sample(VARIANTS, 2, "x", ALL) == VARIANTS


def test_words_and_names_come_round_to_all() -> None:
    by_word = [tuple(sample(VARIANTS, 2, "x", str(number))) for number in range(60)]
    assert {one for some in by_word for one in some} == set(VARIANTS) and len(set(by_word)) == 10
    assert len({tuple(sample(VARIANTS, 2, str(number), "4f2a")) for number in range(60)}) == 10


def test_the_commit_chooses() -> None:
    assert word() and sample(VARIANTS, 2, "x") == sample(VARIANTS, 2, "x", word())
