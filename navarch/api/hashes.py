"""Short stable hashes for names and labels: pod-template-hash, controller revisions.

A hash depends only on content: not on the order of keys, the process, or the run.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import orjson

from navarch.api.types.base import Struct

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels, no look-alikes: no words come out."""


def _spell(number: int, length: int) -> str:
    out = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        out.append(ALPHABET[digit])
    return "".join(out)


def content_hash(value: Any, length: int = 10) -> str:
    """Hash of a JSON value or a struct; ``length`` characters that are safe in names and labels."""
    tree = msgspec.to_builtins(value) if isinstance(value, Struct) else value
    digest = hashlib.blake2b(orjson.dumps(tree, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
    return _spell(int.from_bytes(digest, "big"), length)


def template_hash(template: Any, collision_count: int | None = None) -> str:
    """pod-template-hash of a pod template; ``collision_count`` from the Deployment's status gives another one."""
    tree = msgspec.to_builtins(template) if isinstance(template, Struct) else template
    return content_hash([tree, collision_count] if collision_count is not None else tree)
