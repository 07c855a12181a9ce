"""The state of a cluster at a time, from its changes: the words that conditions and measures share.

Objects are kept as the JSON that was stored. A *reference* names one, or many: ``deployment/web`` and the like,
``namespace:deployment/web`` in another namespace than "default", a label ``app=web``, or "" for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from apiserver.cel.engine import CelError, compile_cel
from navarch.api.pods import TERMINAL_PHASES

Tree = dict[str, Any]

CEL = (("object", "dyn"),)
RESOURCES = {
    "deployment": "deployments", "replicaset": "replicasets", "statefulset": "statefulsets", "daemonset": "daemonsets",
    "job": "jobs", "pod": "pods", "node": "nodes", "service": "services",
}  # fmt: skip


def condition(tree: Tree, kind: str) -> str:
    """The status of a condition; "" if it is not there."""
    for one in tree.get("status", {}).get("conditions") or ():
        if one.get("type") == kind:
            return str(one.get("status"))
    return ""


def is_ready(pod: Tree) -> bool:
    return condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def is_live(pod: Tree) -> bool:
    """Neither ended nor about to go."""
    ended = pod.get("status", {}).get("phase") in TERMINAL_PHASES
    return not ended and "deletionTimestamp" not in pod["metadata"]


def is_pending(pod: Tree) -> bool:
    return is_live(pod) and not pod["spec"].get("nodeName")


def images(pod: Tree) -> list[str]:
    return [c.get("image", "") for c in pod["spec"].get("containers", ())]


def matches(labels: Mapping[str, str], selector: Tree | None) -> bool:
    """Whether labels match a LabelSelector."""
    if selector is None:
        return False
    if any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    for one in selector.get("matchExpressions") or ():
        value, values = labels.get(one["key"]), one.get("values") or ()
        good = {
            "In": value in values, "NotIn": value not in values, "Exists": value is not None, "DoesNotExist": value is None,
        }[one["operator"]]  # fmt: skip
        if not good:
            return False
    return True


def split(reference: str) -> tuple[str, str, str]:
    """Namespace, resource and name of ``kind/name``. Raises ValueError."""
    namespace, colon, rest = reference.rpartition(":")
    kind, slash, name = rest.partition("/")
    if not slash or kind not in RESOURCES or not name:
        raise ValueError(f"{reference!r} is no reference such as deployment/web; kinds: {', '.join(RESOURCES)}")
    return namespace if colon else "default", RESOURCES[kind], name


class State:
    """Objects by key. ``apply`` takes a change in; values are decoded when they are looked at."""

    def __init__(self, decode: Callable[[Any], Tree] = lambda value: value) -> None:
        self._decode = decode
        self._values: dict[str, dict[str, Any]] = {}  # by resource, then by key
        self._trees: dict[str, Tree] = {}
        self.versions: dict[str, int] = {}  # how many changes there were, by resource

    def copy(self) -> State:
        """The state as it is now; the objects are the same."""
        one = State(self._decode)
        one._values = {resource: dict(values) for resource, values in self._values.items()}
        one.versions = dict(self.versions)
        return one

    def apply(self, type: str, key: str, value: Any) -> None:
        resource = resource_of(key)
        self.versions[resource] = self.versions.get(resource, 0) + 1
        self._trees.pop(key, None)
        if type == "DELETED":
            self._values.get(resource, {}).pop(key, None)
        else:
            self._values.setdefault(resource, {})[key] = value

    def get(self, key: str) -> Tree | None:
        value = self._values.get(resource_of(key), {}).get(key)
        if value is None:
            return None
        if key not in self._trees:
            self._trees[key] = self._decode(value)
        return self._trees[key]

    def all(self, resource: str) -> list[Tree]:
        trees = (self.get(key) for key in sorted(self._values.get(resource, ())))
        return [tree for tree in trees if tree is not None]

    def object(self, reference: str) -> Tree | None:
        namespace, resource, name = split(reference)
        return self.get(f"/registry/{resource}/{name}" if resource == "nodes" else f"/registry/{resource}/{namespace}/{name}")

    def pods(self, reference: str = "") -> list[Tree]:
        """The pods that a reference stands for."""
        belongs = self.member(reference)
        return [p for p in self.all("pods") if belongs(p)]

    def member(self, reference: str = "") -> Callable[[Tree], bool]:
        """Whether a pod is one of those that a reference stands for. Raises ValueError."""
        if not reference:
            return lambda pod: True
        if "/" not in reference:
            key, equals, value = reference.partition("=")
            if not equals:
                raise ValueError(f"{reference!r} is neither kind/name nor label=value")
            return lambda pod: (pod["metadata"].get("labels") or {}).get(key) == value
        namespace, resource, name = split(reference)
        if resource == "pods":
            return lambda pod: pod["metadata"]["name"] == name and pod["metadata"]["namespace"] == namespace
        if resource == "nodes":
            return lambda pod: pod["spec"].get("nodeName") == name
        owner = self.object(reference)
        selector = (owner or {}).get("spec", {}).get("selector")
        if resource == "services" and selector is not None:
            selector = {"matchLabels": selector}
        return lambda pod: (
            pod["metadata"]["namespace"] == namespace and matches(pod["metadata"].get("labels") or {}, selector)
        )

    # What may be asked of one object

    def cel(self, reference: str, source: str) -> bool:
        """Whether a CEL expression is true of an ``object``; false if there is none, or a field is missing."""
        tree = self.object(reference)
        if tree is None:
            return False
        try:
            return compile_cel(source, CEL).evaluate({"object": tree}) is True
        except CelError:
            return False

    def ready(self, reference: str = "") -> int:
        return sum(map(is_ready, self.pods(reference)))

    def desired(self, reference: str) -> int:
        workload = self.object(reference)
        return 0 if workload is None else int(workload["spec"].get("replicas", 1))

    def unavailable(self, reference: str) -> int:
        return max(0, self.desired(reference) - self.ready(reference))

    def total(self, reference: str = "") -> int:
        return sum(map(is_live, self.pods(reference)))

    def pending(self, reference: str = "") -> int:
        return sum(map(is_pending, self.pods(reference)))

    def succeeded(self, reference: str = "") -> int:
        return sum(p.get("status", {}).get("phase") == "Succeeded" for p in self.pods(reference))

    def running_image(self, reference: str, image: str) -> int:
        """Live pods of an image."""
        return sum(image in images(p) for p in self.pods(reference) if is_live(p))

    def nodes_ready(self) -> int:
        return sum(condition(n, "Ready") == "True" for n in self.all("nodes"))

    def available(self, reference: str) -> bool:
        """All wanted pods are there and ready, and the controller has seen its newest spec."""
        workload = self.object(reference)
        return workload is not None and _observed(workload) and self.ready(reference) >= self.desired(reference) > 0

    def rolled_out(self, reference: str) -> bool:
        """As ``rollout status``: all wanted pods are of the newest version and ready, and no others are left."""
        workload = self.object(reference)
        return workload is not None and complete(workload, "deployment" in reference)

    def stuck(self, reference: str) -> bool:
        """A deployment whose progress deadline has passed."""
        workload = self.object(reference)
        return workload is not None and any(
            c.get("type") == "Progressing" and c.get("reason") == "ProgressDeadlineExceeded"
            for c in workload.get("status", {}).get("conditions") or ()
        )

    def node_ready(self, name: str) -> bool:
        node = self.object(f"node/{name}")
        return node is not None and condition(node, "Ready") == "True"


def complete(workload: Tree, is_deployment: bool) -> bool:
    """Whether all pods of a workload are of its newest template and ready, and no others are left."""
    if not _observed(workload):
        return False
    status, desired = workload.get("status", {}), int(workload["spec"].get("replicas", 1))
    names = ("updatedReplicas", "replicas", "availableReplicas" if is_deployment else "readyReplicas")
    return all(int(status.get(n, 0)) == desired for n in names)


def _observed(tree: Tree) -> bool:
    return int(tree.get("status", {}).get("observedGeneration", 0)) >= int(tree["metadata"].get("generation", 1))


def resource_of(key: str) -> str:
    """``pods`` of ``/registry/pods/default/web-1``."""
    return key.split("/", 3)[2]


def relevant(reference: str) -> Iterable[str]:
    """The resources on which the pods of a reference depend."""
    if not reference or "/" not in reference:
        return ("pods",)
    return ("pods", split(reference)[1])
