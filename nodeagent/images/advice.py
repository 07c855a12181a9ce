"""Advice on an image that could not be pulled: the likely mistake or the next step, before what the registry said."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from nodeagent.images.reference import Reference

UNREACHABLE = ("no such host", "unreachable", "no route to host", "connection refused", "did not answer in time")
CLOSED = "is not asked"  # navarch/egress.py


def advice(reference: Reference, present: Iterable[str], failure: str) -> str:
    """``failure`` is what the pull said; then what helps. ``present`` are the full names of the images that are here."""
    names = sorted(set(present))
    here = str(reference) in names
    local = reference.domain == "localhost"
    closed = CLOSED in failure
    unreachable = any(text in failure.lower() for text in UNREACHABLE)
    near = close(reference, names)
    if not (local or unreachable or closed):
        return failure + (f"; did you mean {near}?" if near and not here else "")
    if here:
        return f"{'' if local else failure + '; '}the image is here: set imagePullPolicy: IfNotPresent"
    what = "no image of that name was built or imported" if local else failure
    if near:
        return f"{what}; did you mean {near}?"
    return f"{what}; to bring it in: navarch image build -t NAME DIR, or navarch image load FILE"


def close(reference: Reference, names: Iterable[str]) -> str:
    """The image that was probably meant, as people write it; "" if none is like it."""
    shown = {short(name): name for name in names}
    words = {short(str(reference)), reference.path.rpartition("/")[2]}
    by_last = {each.rpartition("/")[2].partition(":")[0]: each for each in shown}
    for word in sorted(words):
        near = difflib.get_close_matches(word, shown, 1, 0.7) or [
            by_last[last]
            for last in difflib.get_close_matches(word.rpartition("/")[2].partition(":")[0], by_last, 1, 0.75)
        ]
        if near:
            return near[0]
    return ""


def short(name: str) -> str:
    """A full name as people write it: without the registry and the tag that are meant anyway."""
    return name.removeprefix("docker.io/").removeprefix("library/").removesuffix(":latest")
