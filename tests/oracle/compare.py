"""Compares apply, field ownership, strategic merge and empty values with upstream's own libraries, on random cases.

    python -m tests.oracle.compare ORACLE [apply|custom|strategic|diff|empty ...] [--seed N] [--count N] [--show N]

ORACLE is the program that tests/oracle/build made. Not run by pytest; see README.md.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from apiserver.http.openapi import definitions
from navarch.api import kinds, pruning
from navarch.api.errors import StatusError
from navarch.api.patch import apply as applying
from navarch.api.patch import copy_tree, fieldsets, managed, same
from navarch.api.patch.diff import create_three_way_strategic_patch
from navarch.api.patch.strategic import apply_strategic
from navarch.api.schema import LIST, OBJECT, Node, from_openapi, schema_of
from tests.oracle.randomtrees import Trees

Tree = dict[str, Any]
KINDS = (
    "v1 Pod", "v1 Service", "v1 ServiceAccount", "v1 ConfigMap", "v1 Node", "v1 PersistentVolumeClaim", "apps/v1 Deployment",
    "apps/v1 StatefulSet", "apps/v1 DaemonSet", "batch/v1 Job", "batch/v1 CronJob", "networking.k8s.io/v1 NetworkPolicy",
    "networking.k8s.io/v1 Ingress", "rbac.authorization.k8s.io/v1 RoleBinding",
)  # fmt: skip
MANAGERS = ("one", "two", "three")
Found = tuple[str, Any, Any, Any]
"""(what, the question, upstream's answer, ours)."""


class Oracle:
    """Upstream's libraries in a process."""

    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, op: str, **question: Any) -> Tree:
        """``{"object": ...}`` or ``{"error": text}``."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"op": op, **question}).encode() + b"\n")
        self.process.stdin.flush()
        answer: Tree = json.loads(self.process.stdout.readline())
        return answer


def differences(theirs: Any, mine: Any, path: str = "") -> Iterator[str]:
    """Where two trees differ, and how."""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        for key in sorted(theirs.keys() | mine.keys()):
            if key not in theirs or key not in mine:
                yield f"{path}.{key}: upstream {json.dumps(theirs.get(key, '-'))}, navarch {json.dumps(mine.get(key, '-'))}"
            else:
                yield from differences(theirs[key], mine[key], f"{path}.{key}")
    elif isinstance(theirs, list) and isinstance(mine, list) and len(theirs) == len(mine):
        for i, (one, other) in enumerate(zip(theirs, mine, strict=True)):
            yield from differences(one, other, f"{path}[{i}]")
    elif not same(theirs, mine):
        yield f"{path}: upstream {json.dumps(theirs)}, navarch {json.dumps(mine)}"


def timeless(tree: Any, node: Node) -> Any:
    """Without the times of managedFields, in a comparable order; no managedFields is the same as none."""
    out = without_structs(without_nulls(copy_tree(tree)), node)
    metadata = out.setdefault("metadata", {})
    entries = metadata.pop("managedFields", None) or []
    for entry in entries:
        entry.pop("time", None)
    metadata.pop("creationTimestamp", None)
    out["managers"] = sorted(entries, key=lambda e: (e["operation"], e["manager"]))
    return out


def without_nulls(tree: Any) -> Any:
    """What upstream's merge empties it leaves as null, which decoding drops."""
    if isinstance(tree, dict):
        return {key: without_nulls(value) for key, value in tree.items() if value is not None}
    return [without_nulls(value) for value in tree] if isinstance(tree, list) else tree


def without_structs(tree: Any, node: Node | None) -> Any:
    """Empty structs that Go always writes count for nothing."""
    if isinstance(tree, dict) and node is not None:
        found = {key: without_structs(value, node.child(key)) for key, value in tree.items()}
        return {k: v for k, v in found.items() if v != {} or node.kind != OBJECT or not fieldsets.always_there(k, node)}
    if isinstance(tree, list) and node is not None and node.kind == LIST:
        return [without_structs(value, node.element) for value in tree]
    return tree


def with_structs(tree: Any, node: Node | None) -> Any:
    """With the empty structs that Go always writes."""
    if isinstance(tree, dict) and node is not None:
        out = {key: with_structs(value, node.child(key)) for key, value in tree.items()}
        if node.kind == OBJECT:
            for key, child in node.fields.items():
                wanted = key not in out and key != "status" and child.kind == OBJECT and node.name
                if wanted and fieldsets.always_there(key, node):
                    out[key] = with_structs({}, child)
        return out
    if isinstance(tree, list) and node is not None and fieldsets.keyed(node):
        return [with_structs(value, node.element) for value in tree]
    return tree


def without_directives(tree: Any) -> Any:
    """Directives of a patch that meets nothing upstream leaves in the object, and decoding drops them."""
    if isinstance(tree, dict):
        return {key: without_directives(value) for key, value in tree.items() if not key.startswith("$")}
    return [without_directives(value) for value in tree] if isinstance(tree, list) else tree


def ours_apply(live: Tree | None, config: Tree, node: Node, manager: str, force: bool) -> Tree:
    return applying.apply(live, config, node, manager=manager, api_version=config["apiVersion"], now="t", force=force)


def ours_update(live: Tree | None, new: Tree, node: Node, manager: str) -> Tree:
    out = copy_tree(new)
    entries = managed.update(live, out, node, manager=manager, api_version=out["apiVersion"], now="t")
    out["metadata"].pop("managedFields", None)
    if entries:
        out["metadata"]["managedFields"] = entries
    return out


def history(oracle: Oracle, trees: Trees, node: Node, converter: str, version: str, kind: str) -> Iterator[Found]:
    """Several managers work on one object; each step starts from what upstream made of the one before."""
    group, api = kinds.group_version(version)
    base = trees.object(node, version, kind)
    live: Tree | None = None
    for _ in range(6):
        op = trees.random.choice(("apply", "apply", "update")) if live is not None else "apply"
        manager, force = trees.random.choice(MANAGERS), trees.random.random() < 0.5
        if op == "apply":
            new = trees.top(trees.top(base, node, "changed"), node, "part")
        else:
            assert live is not None
            new = trees.top(live, node, "changed")
            new["metadata"] |= {key: live["metadata"][key] for key in ("managedFields", "uid") if key in live["metadata"]}
            pruning.prepare(new, node, keep_empty=True)
        asked = {"live": with_structs(live, node), "new": new if op == "apply" else with_structs(new, node)}
        live = asked["live"]
        new = asked["new"]
        question = {"live": live or {"apiVersion": version, "kind": kind}, "new": new, "manager": manager, "force": force,
                    "group": group, "version": api, "kind": kind, "converter": converter}  # fmt: skip
        theirs = oracle.ask(op, **copy_tree(question))
        try:
            if op == "apply":
                mine: Any = {"object": ours_apply(live, new, node, manager, force)}
            else:
                mine = {"object": ours_update(live, new, node, manager)}
        except StatusError as error:
            mine = {"error": error.message}
        if "error" in theirs or "error" in mine:
            if theirs.get("error") != mine.get("error"):
                yield op, question, theirs, mine
            if "error" in theirs:
                continue
        else:
            found, wanted = timeless(mine["object"], node), timeless(theirs["object"], node)
            if not same(found, wanted):
                yield op, question, wanted, found
        live = without_nulls(theirs["object"])
        live["metadata"]["uid"] = "u"  # it has been created


def builtin(oracle: Oracle) -> None:
    """Gives upstream our OpenAPI document of the built-in types."""
    found = definitions.builtin()
    models = {name: definitions.definition(name, one) for name, one in found.items()}
    answer = oracle.ask("converter", converter="builtin", models=models)
    assert answer.get("object"), answer


def apply_cases(oracle: Oracle, seed: int) -> Iterator[Found]:
    trees = Trees(seed)
    version, kind = trees.random.choice(KINDS).split()
    yield from history(oracle, trees, node_of(version, kind), "builtin", version, kind)


def custom_cases(oracle: Oracle, seed: int) -> Iterator[Found]:
    trees = Trees(seed)
    spec = {"type": "object", "properties": {"spec": {"type": "object", "properties": {k: trees.schema() for k in "abc"}}}}
    meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    shown = copy_tree(spec)
    shown["properties"] |= {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"},
        "metadata": {"allOf": [{"$ref": f"#/components/schemas/{meta}"}]},
    }  # fmt: skip
    shown["x-kubernetes-group-version-kind"] = [{"group": "x.io", "version": "v1", "kind": "Foo"}]
    models = {**definitions.closure({meta}, {}, definitions.builtin()), "io.x.v1.Foo": shown}
    answer = oracle.ask("converter", converter="custom", models=models)
    if "error" in answer:
        yield "schema", spec, answer, None
        return
    for found in history(oracle, trees, from_openapi(spec), "custom", "x.io/v1", "Foo"):
        yield found[0], {**found[1], "schema": spec["properties"]["spec"]}, found[2], found[3]


def node_of(version: str, kind: str) -> Node:
    return schema_of(kinds.BY_GVK[(*kinds.group_version(version), kind)].type)


def strategic_cases(oracle: Oracle, seed: int) -> Iterator[Found]:
    """A patch that upstream makes between two objects, applied to a third."""
    trees = Trees(seed)
    version, kind = trees.random.choice(KINDS).split()
    node = node_of(version, kind)
    original = trees.object(node, version, kind)
    modified, current = trees.top(original, node, "changed"), trees.top(original, node, "changed")
    made = oracle.ask("twoway", kind=kind, original=original, modified=modified)
    if "error" in made:
        return
    question = {"kind": kind, "original": current, "patch": made["object"]}
    theirs = oracle.ask("strategic", **question)
    try:
        mine: Any = {"object": apply_strategic(current, made["object"], node)}
    except StatusError as error:
        mine = {"error": error.message}
    if theirs.get("error") == "no elements in any of the given slices":
        return  # upstream stumbles over an order for a list that is empty on both sides
    left = without_directives(without_nulls(theirs.get("object")))
    if ("error" in theirs) != ("error" in mine) or not same(left, mine.get("object")):
        yield "strategic", question, left or theirs, mine.get("object") or mine


def diff_cases(oracle: Oracle, seed: int) -> Iterator[Found]:
    """The patch of `apply`: from what was applied last, what is applied now, and what is there."""
    trees = Trees(seed)
    version, kind = trees.random.choice(KINDS).split()
    node = node_of(version, kind)
    original = trees.object(node, version, kind)
    modified, current = trees.top(original, node, "changed"), trees.top(original, node, "changed")
    question = {"kind": kind, "original": original, "modified": modified, "current": current}
    theirs = oracle.ask("threeway", **question)
    try:
        mine: Any = {"object": create_three_way_strategic_patch(original, modified, current, node)}
    except StatusError as error:
        mine = {"error": error.message}
    if "error" in theirs or "error" in mine:
        return
    # What counts is what the two patches do; upstream also deletes what is not there.
    effects = [
        without_directives(without_nulls(oracle.ask("strategic", kind=kind, original=current, patch=made["object"])))
        for made in (theirs, mine)
    ]
    if not same(*effects):
        yield "diff", {**question, "theirs": theirs, "mine": mine}, effects[0], effects[1]


def empty_cases(oracle: Oracle, seed: int) -> Iterator[Found]:
    """What is left of an object that Go reads and writes."""
    trees = Trees(seed)
    version, kind = trees.random.choice(KINDS).split()
    node = node_of(version, kind)
    obj = trees.object(node, version, kind)
    theirs = oracle.ask("struct", kind=kind, original=obj)
    mine = copy_tree(obj)
    pruning.prepare(mine, node)
    if "error" in theirs:
        return
    always = without_what_go_adds(theirs["object"], mine, obj)
    if not same(always, mine):
        yield "empty", obj, always, mine


def without_what_go_adds(theirs: Any, mine: Any, asked: Any) -> Any:
    """Go writes structs, and scalars without omitempty, that nobody gave: they are left out where neither the question nor
    our answer has them."""
    if isinstance(theirs, dict) and isinstance(mine, dict) and isinstance(asked, dict):
        return {
            k: without_what_go_adds(v, mine.get(k), asked.get(k)) for k, v in theirs.items() if k in mine or k in asked
        }
    lists = isinstance(theirs, list) and isinstance(mine, list) and isinstance(asked, list)
    if lists and len(theirs) == len(asked) == len(mine):
        return [without_what_go_adds(t, m, a) for t, m, a in zip(theirs, mine, asked, strict=True)]
    return theirs


SUITES: dict[str, Callable[[Oracle, int], Iterator[Found]]] = {
    "apply": apply_cases, "custom": custom_cases, "strategic": strategic_cases, "diff": diff_cases, "empty": empty_cases,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("oracle", help="the program that tests/oracle/build made")
    parser.add_argument("suites", nargs="*", default=list(SUITES), help=", ".join(SUITES))
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1000, help="seeds a suite")
    parser.add_argument("--show", type=int, default=3, help="differences to print of each suite")
    options = parser.parse_args()
    oracle = Oracle(options.oracle)
    builtin(oracle)
    counts: collections.Counter[str] = collections.Counter()
    for suite in options.suites:
        shown = 0
        for seed in range(options.seed, options.seed + options.count):
            for what, question, theirs, mine in SUITES[suite](oracle, seed):
                counts[f"{suite} {what}"] += 1
                if shown < options.show:
                    shown += 1
                    print(f"--- {suite} {what}, seed {seed}")
                    print("\n".join(differences(theirs, mine)))
                    print(f"question: {orjson.dumps(question, option=orjson.OPT_SORT_KEYS).decode()}")
        told = {name: count for name, count in counts.items() if name.split()[0] == suite}
        print(f"{suite}: {options.count} seeds, differences: {told or 0}")
    oracle.process.kill()
    return 1 if counts else 0


if __name__ == "__main__":
    sys.exit(main())
