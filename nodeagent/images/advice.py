"""Advice on an image that could not be pulled: the likely mistake or the next step, before what the registry said."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from nodeagent.images.reference import Reference

UNREACHABLE = (
    "dial tcp", "no such host", "network is unreachable", "no route to host", "connection refused", "i/o timeout",
    "deadline exceeded", "server misbehaving",
)  # fmt: skip


def advice(wanted: Reference, present: Iterable[str], failure: str) -> str:
    """``failure`` (what the pull said) in fewer words where it only tells that no registry is there; then what helps.
    ``present`` are the full names of the images that the node has."""
    names = sorted(set(present))
    here = str(wanted) in names
    local = wanted.domain == "localhost"
    unreachable = any(text in failure for text in UNREACHABLE)
    if not (local or unreachable):
        near = close(wanted, names)
        return failure + (f"; did you mean {near}?" if near and not here else "")
    if here:
        return "no registry has it, but this node does: set imagePullPolicy: IfNotPresent"
    what = "no image of that name was built or imported" if local else f"{wanted.domain} cannot be reached from the lab"
    near = close(wanted, names)
    if near:
        return f"{what}; did you mean {near}?"
    return f"{what}: bring it in with: navarch image build -t NAME DIR, or navarch image import FILE"


def close(wanted: Reference, names: Iterable[str]) -> str:
    """The image that was probably meant, as people write it; "" if none is like it."""
    shown = {short(name): name for name in names}
    words = {short(str(wanted)), wanted.path.rpartition("/")[2]}
    by_last = {each.rpartition("/")[2].partition(":")[0]: each for each in shown}
    for word in sorted(words):
        near = difflib.get_close_matches(word, shown, 1, 0.7) or [
            by_last[last] for last in difflib.get_close_matches(word.rpartition("/")[2].partition(":")[0], by_last, 1, 0.75)
        ]
        if near:
            return near[0]
    return ""


def short(name: str) -> str:
    """A full name as people write it: without the registry and the tag that are meant anyway."""
    return name.removeprefix("docker.io/").removeprefix("library/").removesuffix(":latest")
