"""Changes that can be rehearsed, from kubectl's words to steps of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lab.experiments.file import Experiment, parse
from lab.experiments.schema import WrongFile
from lab.experiments.state import RESOURCES
from lab.twin.snapshot import Snapshot, Tree
from navarch.api import kinds
from navarch.api.serialization import decode_yaml

FORMS = """drain NODE
scale deploy/web --replicas=N
set image deploy/web web=web:v2
rollout restart deploy/web
delete pod/web-1
cordon NODE, uncordon NODE"""
SHORT = {
    "deploy": "deployment", "deployments": "deployment", "rs": "replicaset", "replicasets": "replicaset", "sts": "statefulset",
    "statefulsets": "statefulset", "ds": "daemonset", "daemonsets": "daemonset", "po": "pod", "pods": "pod", "no": "node",
    "nodes": "node", "jobs": "job", "svc": "service", "services": "service",
}  # fmt: skip


class ChangeError(ValueError):
    """The change cannot be understood, or is about something that is not there."""


class Change(NamedTuple):
    """``words`` for people; ``drained`` and ``lost`` are nodes."""

    words: str
    steps: list[dict[str, Any]]
    drained: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    images: tuple[str, ...] = ()


def reference(text: str, snapshot: Snapshot, namespace: str) -> str:
    """``namespace:kind/name`` of an object that is there. Raises ChangeError."""
    word, slash, name = text.partition("/")
    kind = SHORT.get(word.partition(".")[0].lower(), word.partition(".")[0].lower())
    if not slash or not name or kind not in RESOURCES:
        raise ChangeError(f"{text!r} is no object such as deploy/web; kinds: {', '.join(RESOURCES)}")
    resource = RESOURCES[kind]
    key = f"/registry/{resource}/{name}" if kind == "node" else f"/registry/{resource}/{namespace}/{name}"
    if key not in snapshot.objects:
        where = "" if kind == "node" else f" in namespace {namespace!r}"
        raise ChangeError(f"there is no {kind} {name!r}{where}")
    return f"{kind}/{name}" if kind == "node" else f"{namespace}:{kind}/{name}"


def node(name: str, snapshot: Snapshot) -> str:
    name = name.removeprefix("node/")
    if f"/registry/nodes/{name}" not in snapshot.objects:
        choices = ", ".join(n["metadata"]["name"] for n in snapshot.of("nodes")[:10])
        raise ChangeError(f"there is no node {name!r}; nodes: {choices}")
    return name


def from_words(words: Sequence[str], snapshot: Snapshot, namespace: str, replicas: int | None = None) -> Change:
    """The change that kubectl's words mean. Raises ChangeError."""
    said = " ".join(words)
    match list(words):
        case ["drain", *names] if names:
            nodes = tuple(node(n, snapshot) for n in names)
            return Change(said, [{"do": {"drain": n}} for n in nodes], drained=nodes)
        case ["cordon" | "uncordon" as verb, *names] if names:
            return Change(said, [{"do": {verb: node(n, snapshot)}} for n in names])
        case ["scale", target]:
            if replicas is None:
                raise ChangeError("scale: --replicas=N is needed")
            ref = reference(target, snapshot, namespace)
            return Change(f"{said} --replicas={replicas}", [{"do": {"scale": {ref: replicas}}}])
        case ["set", "image", target, *pairs] if pairs:
            ref = reference(target, snapshot, namespace)
            target_tree = _object(ref, snapshot)
            choices = [c["name"] for c in target_tree["spec"]["template"]["spec"]["containers"]]
            listed = []
            for pair in pairs:
                name, equals, image = pair.partition("=")
                if not equals or (name != "*" and name not in choices):
                    raise ChangeError(
                        f"{pair!r}: expected CONTAINER=IMAGE; containers of {target}: {', '.join(choices)}"
                    )
                listed += [{"name": n, "image": image} for n in (choices if name == "*" else [name])]
            body = {"spec": {"template": {"spec": {"containers": listed}}}}
            images = tuple(one["image"] for one in listed)
            return Change(said, [{"do": {"patch": {ref: body}}}], images=images)
        case ["rollout", "restart", *targets] if targets:
            return Change(said, [{"do": {"restart": reference(t, snapshot, namespace)}} for t in targets])
        case ["rollout", "pause" | "resume" as verb, *targets] if targets:
            return Change(said, [{"do": {verb: reference(t, snapshot, namespace)}} for t in targets])
        case ["delete", *targets] if targets:
            return Change(said, [{"do": {"delete": reference(t, snapshot, namespace)}} for t in targets])
    raise ChangeError(f"{said!r} is no change that can be rehearsed; changes:\n{FORMS}")


def from_files(texts: Mapping[str, str], namespace: str) -> Change:
    """Objects to apply, by the name of their file. Kinds that the twin does not serve are skipped. Raises ChangeError."""
    steps, skipped, words, images = [], [], [], []
    for file, text in texts.items():
        try:
            trees = decode_yaml(text)
        except ValueError as error:
            raise ChangeError(f"{file}: {error}") from None
        for tree in trees:
            group, version = kinds.group_version(tree.get("apiVersion", ""))
            kind = kinds.BY_GVK.get((group, version, str(tree.get("kind"))))
            name = f"{tree.get('kind')} {tree.get('metadata', {}).get('name')}"
            if kind is None:
                skipped.append(f"{name} ({tree.get('apiVersion')})")
                continue
            if kind.namespaced:
                tree.setdefault("metadata", {}).setdefault("namespace", namespace)
            images += _images(tree)
            steps.append({"do": {"apply": tree}})
        words.append(file)
    if not steps:
        raise ChangeError(f"nothing in {', '.join(texts)} can be applied to the twin")
    return Change(f"apply -f {' -f '.join(words)}", steps, skipped=tuple(skipped), images=tuple(images))


def from_steps(path: Path) -> Change:
    """The ``steps`` of an experiment's file, or a list of them. Raises ChangeError with every mistake."""
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ChangeError(f"{path}: {error}") from None
    steps = tree.get("steps") if isinstance(tree, dict) else tree
    if not isinstance(steps, list) or not steps:
        raise ChangeError(f"{path}: a list of steps was expected, or an object with steps")
    base = path.parent
    for step in steps:
        do = step.get("do") if isinstance(step, dict) else None
        if isinstance(do, dict) and isinstance(do.get("apply"), str) and "\n" not in do["apply"]:
            do["apply"] = (base / do["apply"]).read_text()
    lost = [
        str(s["fault"][f]) for s in steps if isinstance(s, dict) for f in ("power-off",) if f in (s.get("fault") or {})
    ]
    drained = [str(s["do"]["drain"]) for s in steps if isinstance(s, dict) and "drain" in (s.get("do") or {})]
    return Change(f"steps of {path}", steps, tuple(drained), tuple(lost))


def lose(names: Sequence[str], snapshot: Snapshot) -> Change:
    """Nodes that lose their power at once."""
    nodes = tuple(node(n, snapshot) for n in names)
    return Change(f"--lose {' --lose '.join(nodes)}", [{"fault": {"power-off": n}} for n in nodes], lost=nodes)


def together(parts: Sequence[Change]) -> Change:
    """One after another. Raises ChangeError if there are none."""
    if not parts:
        raise ChangeError(f"tell what to rehearse: -f FILE, --lose NODE, --steps FILE, or one of\n{FORMS}")
    return Change(
        ", then ".join(p.words for p in parts), [s for p in parts for s in p.steps],
        tuple(n for p in parts for n in p.drained), tuple(n for p in parts for n in p.lost),
        tuple(n for p in parts for n in p.skipped), tuple(i for p in parts for i in p.images),
    )  # fmt: skip


def experiment(change: Change, seconds: float) -> Experiment:
    """The experiment that plays a change on a twin. Raises ChangeError."""
    tree = {
        "apiVersion": "lab.navarch.dev/v1", "kind": "Experiment", "metadata": {"name": "rehearsal"},
        "cluster": {"nodes": [{"count": 1}]}, "steps": change.steps, "for": f"{seconds}s", "seeds": 1,
    }  # fmt: skip
    try:
        return parse(tree)
    except WrongFile as error:
        raise ChangeError("\n".join(str(p) for p in error.problems)) from None


def _object(ref: str, snapshot: Snapshot) -> Tree:
    namespace, _, rest = ref.rpartition(":")
    kind, _, name = rest.partition("/")
    return snapshot.objects[f"/registry/{RESOURCES[kind]}/{namespace}/{name}"]


def _images(tree: Tree) -> list[str]:
    spec = tree.get("spec") or {}
    template = (spec.get("template") or {}).get("spec") or spec
    return [c.get("image", "") for c in template.get("containers") or () if isinstance(c, dict)]
