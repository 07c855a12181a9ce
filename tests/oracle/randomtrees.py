"""Random objects of a schema, parts of them and changes to them: what managers apply and clients write."""

from __future__ import annotations

import random
from typing import Any

from navarch.api import schema as kinds
from navarch.api.patch import copy_tree
from navarch.api.schema import Node

Tree = dict[str, Any]
KEYS = ("a", "b", "c")
SCALARS: dict[str, tuple[Any, ...]] = {
    kinds.STRING: ("", "x", "y"), kinds.BOOL: (True, False), kinds.INT32: (0, 1, 80), kinds.INT64: (0, 1, 80),
    kinds.INTEGER: (0, 1, 80), kinds.NUMBER: (0, 1, 1.5), kinds.QUANTITY: ("1", "100m"), kinds.INT_OR_STRING: (1, "x"),
    kinds.TIME: ("2026-01-01T00:00:00Z",), kinds.MICRO_TIME: ("2026-01-01T00:00:00.000000Z",), kinds.BYTES: ("", "YQ=="),
}  # fmt: skip
ANYTHING: tuple[Any, ...] = ("x", 1, True, {}, [], {"a": 1}, {"a": {"b": "x"}, "c": {}}, [1, {"a": 2}], {"a": [{"name": "x"}]})
# What Debian's libraries, those of 1.32, do not know.
NEW = (
    "restartPolicyRules", "hostnameOverride", "fileKeyRef", "podCertificate", "extendedResourceClaimStatus",
    "declaredFeatures", "stopSignal",
)  # fmt: skip
SKIPPED = ("status", "apiVersion", "kind", "managedFields", "creationTimestamp", "deletionTimestamp")


class Trees:
    """Random trees from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def object(self, node: Node, version: str, kind: str) -> Tree:
        """A whole object."""
        body = {k: v for k in self.some(list(node.fields), 0.9) if k not in (*SKIPPED, "metadata")
                for v in [self.value(node.fields[k], 7)]}  # fmt: skip
        return {"apiVersion": version, "kind": kind, "metadata": {"name": "n", **self.metadata()}, **body}

    def metadata(self) -> Tree:
        out: Tree = {}
        if self.random.random() < 0.4:
            out["labels"] = {k: "x" for k in self.some(list(KEYS), 0.6)}
        if self.random.random() < 0.2:
            out["finalizers"] = self.some(["x/a", "x/b"], 0.7)
        if self.random.random() < 0.2:
            out["ownerReferences"] = [
                {"apiVersion": "v1", "kind": "K", "name": k, "uid": k} for k in self.some(list(KEYS), 0.6)
            ]
        return out

    def some(self, items: list[Any], chance: float) -> list[Any]:
        return [item for item in items if self.random.random() < chance]

    def value(self, node: Node, depth: int) -> Any:
        """A value of the node; no deeper than ``depth``."""
        choose = self.random
        match node.kind:
            case kinds.OBJECT:
                few = 4 / max(4, len(node.fields))
                names = self.some([f for f in node.fields if f not in NEW], max(few, 0.15)) if depth > 0 else []
                return {k: self.value(node.fields[k], depth - 1) for k in names}
            case kinds.MAP:
                return {k: self.value(node.element, depth - 1) for k in self.some(list(KEYS), 0.5)} if depth > 0 else {}
            case kinds.LIST:
                return self.list(node, depth)
            case kinds.ANY | kinds.ANY_OBJECT:
                found = [v for v in ANYTHING if node.kind == kinds.ANY or isinstance(v, dict)]
                return copy_tree(choose.choice(found))
        return choose.choice(SCALARS[node.kind])

    def list(self, node: Node, depth: int) -> list[Any]:
        if depth <= 0:
            return []
        items = [self.value(node.element, depth - 1) for _ in range(self.random.choice((0, 1, 2, 3)))]
        if node.list_type == "set":
            return list({repr(v): v for v in items}.values())
        if node.list_type == "map":
            return self.keyed(node, items)
        return items

    def keyed(self, node: Node, items: list[Any]) -> list[Any]:
        """Elements with keys; now and then one is left to its default, or there twice."""
        seen: dict[str, Any] = {}
        for item in items:
            for key in node.list_keys:
                field = node.element.fields[key]
                if node.element.key_default(key) is not None and self.random.random() < 0.4:
                    item.pop(key, None)
                else:
                    item[key] = self.random.choice(SCALARS.get(field.kind, ("x", "y"))[-2:])
            seen[repr([item.get(key, node.element.key_default(key)) for key in node.list_keys])] = item
        return items if self.random.random() < 0.01 else list(seen.values())

    def part(self, value: Any, node: Node | None) -> Any:
        """Some of the value: what one of several managers cares about."""
        if isinstance(value, dict) and node is not None and node.kind in (kinds.OBJECT, kinds.MAP):
            return {k: self.part(v, node.child(k)) for k, v in value.items() if self.random.random() < 0.75}
        if isinstance(value, list) and node is not None and node.kind == kinds.LIST:
            keys = node.list_keys if node.list_type == "map" else ()
            left = [v for v in value if self.random.random() < 0.75]
            return [{**self.part(v, node.element), **{k: v[k] for k in keys if k in v}} if keys else v for v in left]
        return value

    def changed(self, value: Any, node: Node | None, depth: int = 6) -> Any:
        """The value with something different here and there."""
        choose = self.random
        if node is None:
            return value
        if choose.random() < 0.06 and node.kind != kinds.OBJECT:
            return self.value(node, depth)
        if isinstance(value, dict) and node.kind in (kinds.OBJECT, kinds.MAP):
            out = {k: self.changed(v, node.child(k), depth - 1) for k, v in value.items() if choose.random() < 0.94}
            if node.kind == kinds.OBJECT and node.fields and choose.random() < 0.2:
                key = choose.choice([f for f in node.fields if f not in NEW])
                out.setdefault(key, self.value(node.fields[key], depth - 1))
            return out
        if isinstance(value, list) and node.kind == kinds.LIST:
            keys = node.list_keys if node.list_type == "map" else ()
            left = [v for v in value if choose.random() < 0.9]
            out_list = [
                {**self.changed(v, node.element, depth - 1), **{k: v[k] for k in keys if k in v}} if keys else v for v in left
            ]
            if choose.random() < 0.2:
                choose.shuffle(out_list)
            return out_list
        return value

    def top(self, tree: Tree, node: Node, how: str) -> Tree:
        """:meth:`part` or :meth:`changed` of an object, whose name and kind stay."""
        act = self.part if how == "part" else self.changed
        out = {k: act(v, node.child(k)) for k, v in tree.items() if k not in ("apiVersion", "kind", "metadata", "status")}
        metadata = self.metadata() if self.random.random() < 0.3 else dict(tree["metadata"])
        return {"apiVersion": tree["apiVersion"], "kind": tree["kind"], "metadata": {**metadata, "name": "n"}, **out}

    def schema(self, depth: int = 4) -> Tree:
        """A structural schema of a custom resource's part."""
        choose = self.random
        which = choose.choice(("object", "object", "map", "map", "list", "list", "scalar", "open", "union"))
        if depth <= 0:
            which = "scalar"
        match which:
            case "object":
                out: Tree = {"type": "object", "properties": {k: self.schema(depth - 1) for k in self.some(list(KEYS), 0.7)}}
                if choose.random() < 0.15:
                    out["x-kubernetes-map-type"] = "atomic"
                if choose.random() < 0.15:
                    out["x-kubernetes-preserve-unknown-fields"] = True
                return out
            case "map":
                return {"type": "object", "additionalProperties": self.schema(depth - 1)}
            case "open":
                return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            case "union":
                return choose.choice(({"x-kubernetes-int-or-string": True}, {"x-kubernetes-preserve-unknown-fields": True}))
            case "list":
                return self.list_schema(depth)
        return {"type": choose.choice(("string", "integer", "boolean", "number"))}

    def list_schema(self, depth: int) -> Tree:
        match self.random.choice(("atomic", "plain", "set", "map", "map")):
            case "set":
                return {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}
            case "map":
                name: Tree = {"type": "string"}
                if self.random.random() < 0.3:
                    name["default"] = "d"
                fields = {**{k: self.schema(depth - 2) for k in self.some(list(KEYS), 0.6)}, "name": name}
                item = {"type": "object", "properties": fields, "required": [] if "default" in name else ["name"]}
                return {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item}
            case "atomic":
                return {"type": "array", "x-kubernetes-list-type": "atomic", "items": self.schema(depth - 1)}
        return {"type": "array", "items": self.schema(depth - 1)}
