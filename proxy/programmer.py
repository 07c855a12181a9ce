"""Brings rules into the kernel, and finds out whose fault it is if the kernel refuses them.

A transaction is accepted or refused as a whole. So what is refused is cut in two, and each half tried on its own, until
the guilty services stand alone: about 2 log2(n) transactions for one among n.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from navarch.linux.nftables import NftablesError
from proxy.nftables import SERVICES, Layout, RuleSet
from proxy.rules import Rules

log = logging.getLogger(__name__)


class Runs(Protocol):
    def run(self, commands: str) -> str:
        """Runs commands as one transaction. Raises NftablesError; then nothing has changed."""
        ...


class Programmer:
    """``rules`` are those that the kernel has accepted."""

    def __init__(self, nft: Runs, layout: Layout = SERVICES) -> None:
        self.nft, self.layout = nft, layout
        self.rules = RuleSet(layout)
        self._refused: dict[str, str] = {}
        self._unsure = True  # whether the kernel may have something else than ``rules``

    def program(self, changes: Mapping[str, Rules]) -> dict[str, str]:
        """Gives services new rules (empty: none). What was refused: service -> nftables' words; if the whole set had to be
        loaded anew, these may be others than the ``changes`` ones. It blocks.

        Raises NftablesError if not even a table without services is accepted; then call it again with all that is wanted.
        """
        if self._unsure:
            refused = self._replace({**self.rules.services, **changes})
        else:
            refused = self._halve(changes)
            if any(key not in self._refused for key in refused):
                refused = self._second_look({key: changes[key] for key in refused})
        for key in changes:
            self._refused.pop(key, None)
        self._refused |= refused
        return refused

    def clear(self) -> None:
        """Removes the table, with whatever stands in it. It blocks. Raises NftablesError."""
        self.nft.run(f"add table {self.layout.table}\ndelete table {self.layout.table}\n")
        self.rules, self._refused, self._unsure = RuleSet(self.layout), {}, True

    def _replace(self, everything: Mapping[str, Rules]) -> dict[str, str]:
        """Puts a whole rule set in the place of whatever is there: in one transaction, if nobody is guilty."""
        whole = RuleSet(self.layout)
        whole.services = dict(everything)
        try:
            self.nft.run(whole.full())
            self.rules, self._unsure = whole, False
            return {}
        except NftablesError as error:
            log.error("the whole rule set was refused: %s", error)
        empty = RuleSet(self.layout)
        self.nft.run(empty.full())
        self.rules, self._unsure = empty, False
        return self._halve(everything)

    def _second_look(self, suspects: Mapping[str, Rules]) -> dict[str, str]:
        """Are they guilty, or has somebody else changed our table? What was accepted before must be accepted again."""
        try:
            self.nft.run(self.rules.full())
        except NftablesError:
            return self._replace({**self.rules.services, **suspects})
        return self._halve(suspects)

    def _halve(self, changes: Mapping[str, Rules]) -> dict[str, str]:
        error = self._change(changes)
        if not error:
            return {}
        if len(changes) == 1:
            return dict.fromkeys(changes, error)
        keys = list(changes)
        middle = len(keys) // 2
        refused: dict[str, str] = {}
        for half in (keys[:middle], keys[middle:]):
            refused |= self._halve({key: changes[key] for key in half})
        return refused

    def _change(self, changes: Mapping[str, Rules]) -> str:
        """One transaction; nftables' words if it was refused."""
        before = {key: self.rules.services.get(key, Rules()) for key in changes}
        commands = self.rules.change(changes)
        if not commands:
            return ""
        try:
            self.nft.run(commands)
            return ""
        except NftablesError as error:
            self.rules.change(before)  # the kernel has not changed
            return str(error) or "refused"
