"""Random objects of every served kind that their schema allows, most of which nobody would write.

    objects = Objects(Random(7), namespaces=("default", "a"))
    kind, tree = objects.one()            # of any kind in ``objects.kinds``
    tree = objects.of(POD)                # of one kind (navarch.api.kinds.Kind), or of each: for kind in objects.kinds
    path = kind.path(tree["metadata"].get("namespace"))   # where to POST it

An object begins as a valid example of its kind and is changed at 0 to 6 random places: a field that the schema knows is
added with whatever below it, a value is replaced by another one of its type, an element is doubled or left out. About half
of them pass validation. The same Random gives the same objects. Names are new each time; what objects say of each other
(``values.NAMES``) is not, so that they do meet. ``SAFE`` leaves out kinds that change what becomes of other requests.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from random import Random
from typing import Any

import yaml

from navarch.api import schema as s
from navarch.api.kinds import Kind
from navarch.api.schema import Node, schema_of
from tests.apiserver.kinds.support import CATALOG
from tests.apiserver.kinds.test_kinds import MINIMAL
from tests.fuzz import values

Tree = dict[str, Any]
Spot = tuple[Any, Any, Node, str]
"""A container, the key in it, the schema of what is (or could be) there, and the name of the field."""

_POD = "{metadata: {name: x}, spec: {containers: [{name: c, image: i}]}}"
KINDS: tuple[Kind, ...] = tuple(rules.kind for rules in CATALOG.values())
_JUDGES = (
    "mutatingwebhookconfigurations", "validatingwebhookconfigurations", "validatingadmissionpolicies",
    "validatingadmissionpolicybindings", "apiservices", "flowschemas", "prioritylevelconfigurations",
    "customresourcedefinitions", "limitranges", "resourcequotas",
)  # fmt: skip
SAFE: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind.resource not in _JUDGES)
_KEPT = ("apiVersion", "kind", "metadata")
DEPTH = 5


@functools.cache
def _example(kind: Kind) -> Tree:
    by_kind = {CATALOG[key].kind: text for key, (text, _) in MINIMAL.items()}
    tree: Tree = yaml.safe_load(by_kind.get(kind, _POD))
    return tree


class Objects:
    """See the module. ``odd``: the chance (0 to 1) that a leaf is from the edge of its type."""

    def __init__(
        self,
        random: Random,
        *,
        namespaces: Sequence[str] = ("default",),
        kinds: Sequence[Kind] = KINDS,
        odd: float = 0.25,
    ) -> None:
        self.random, self.namespaces, self.kinds, self.odd = random, tuple(namespaces), tuple(kinds), odd
        self._made = 0

    def one(self) -> tuple[Kind, Tree]:
        kind = self.random.choice(self.kinds)
        return kind, self.of(kind)

    def of(self, kind: Kind) -> Tree:
        """An object with apiVersion, kind, a name of its own, and a namespace if the kind has one."""
        tree: Tree = copy.deepcopy(_example(kind))
        example = tree.get("metadata") or {}
        metadata = {k: example[k] for k in ("labels", "annotations") if k in example}
        tree |= {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
        self.mutate(tree, schema_of(kind.type), self.random.choice((0, 1, 1, 2, 3, 6)))
        metadata = tree["metadata"] if isinstance(tree.get("metadata"), dict) else {}
        tree["metadata"] = metadata
        self._made += 1
        metadata["name"] = self._name(kind, tree, example)
        for field in ("generateName", "resourceVersion", "deletionTimestamp", "managedFields", "finalizers"):
            metadata.pop(field, None)
        metadata.pop("namespace", None)
        if kind.namespaced:
            metadata["namespace"] = self.random.choice(self.namespaces)
        return tree

    def _name(self, kind: Kind, tree: Tree, example: Tree) -> str:
        """The name that the kind asks for, or a new one."""
        if kind.resource == "customresourcedefinitions":
            new = f"w{self._made}s"
            spec = tree.get("spec") or {}
            named = {"plural": new, "kind": f"W{self._made}", "singular": f"w{self._made}", "shortNames": []}
            if isinstance(spec.get("names"), dict):
                spec["names"] |= named
            return f"{new}.{spec.get('group', '')}"
        if kind.resource == "apiservices":
            return str(example["name"])
        if kind.resource == "ipaddresses":
            return f"10.9.{self._made // 250 % 250}.{self._made % 250}"
        return f"f{self._made}"

    def mutate(self, tree: Tree, schema: Node, times: int) -> None:
        """Changes ``tree`` in place at ``times`` random places, in ways that the schema allows."""
        for _ in range(times):
            there, absent = _spots(tree, schema)
            if absent and (not there or self.random.random() < 0.6):
                holder, key, node, field = self.random.choice(absent)
                holder[key] = self.value(node, field, DEPTH - 2)
                continue
            if not there:
                return
            holder, key, node, field = self.random.choice(there)
            pick = self.random.randrange(6)
            if pick == 0 and isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            elif pick == 1:
                del holder[key]
            elif pick == 2 and node.kind in (s.LIST, s.MAP, s.OBJECT, s.ANY_OBJECT):
                holder[key] = [] if node.kind == s.LIST else {}
            else:
                holder[key] = self.value(node, field, DEPTH - 3)

    def value(self, node: Node, field: str, depth: int) -> Any:
        """A value that the schema allows; structs have few fields, and fewer the deeper they are."""
        random = self.random
        if node.kind == s.OBJECT:
            if depth <= 0:
                names = list(node.required)
            else:
                wanted = random.randrange(1, 4)
                names = [
                    n for n in random.sample(list(node.fields), min(wanted, len(node.fields))) if n not in node.required
                ]
                names += node.required
            return {name: self.value(node.fields[name], name, depth - 1) for name in names}
        if node.kind == s.LIST:
            return [self.value(node.element, field, depth - 1) for _ in range(random.choice((0, 1, 1, 2)))]
        if node.kind == s.MAP:
            keys = [
                random.choice(values.KEYS if random.random() < self.odd else values.KEYS[:8])
                for _ in range(random.randrange(3))
            ]
            return {key: self.value(node.element, field, depth - 1) for key in keys}
        return values.leaf(random, node, field, self.odd)


def _spots(tree: Tree, schema: Node) -> tuple[list[Spot], list[Spot]]:
    """The places where something is, and those where something could be."""
    there: list[Spot] = []
    absent: list[Spot] = []

    def look(value: Any, node: Node, field: str) -> None:
        if node.kind == s.OBJECT and isinstance(value, dict):
            for name, child in node.fields.items():
                if value is tree and name in _KEPT and name != "metadata":
                    continue
                if name in value:
                    if not (value is tree and name == "metadata"):
                        there.append((value, name, child, name))
                    look(value[name], child, name)
                else:
                    absent.append((value, name, child, name))
        elif node.kind == s.LIST and isinstance(value, list):
            for i, item in enumerate(value):
                there.append((value, i, node.element, field))
                look(item, node.element, field)
        elif node.kind == s.MAP and isinstance(value, dict):
            for key in value:
                there.append((value, key, node.element, field))
                look(value[key], node.element, field)

    look(tree, schema, "")
    return there, absent
