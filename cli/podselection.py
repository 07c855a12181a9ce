"""From what a person names (a pod, a deployment, a service) to the pod that is meant, and its containers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from cli.errors import CommandError
from cli.session import Session, Tree
from cli.targets import LiveObject
from navarch.api import selectors, wellknown
from navarch.api.kinds import KINDS
from navarch.client.client import ResourceClient

DEFAULT_CONTAINER = wellknown.DEFAULT_CONTAINER
POD = next(kind for kind in KINDS if kind.kind == "Pod")


def pods_client(session: Session) -> ResourceClient[Tree]:
    return session.client.tree(POD)


def selector_of(live: LiveObject) -> str:
    """The label selector of the pods that belong to an object. Raises CommandError if it has none."""
    selector = (live.tree.get("spec") or {}).get("selector")
    if live.resource.kind.kind == "Service":
        if not selector:
            raise CommandError(f"invalid service '{live.name}': Service is defined without a selector")
        return str(selectors.from_labels(selector))
    if live.resource.kind.kind == "ReplicationController":
        return str(selectors.from_labels(selector))
    if isinstance(selector, dict):
        return str(selectors.from_tree(selector))
    raise CommandError(f"cannot get the logs from {live.resource.kind.api_version}, Kind={live.resource.kind.kind}")


async def all_pods(session: Session, live: LiveObject) -> list[Tree]:
    """The pods of an object; of a pod, itself."""
    if live.resource.full == "pods":
        return [live.tree]
    page = await pods_client(session).list(live.namespace, label_selector=selector_of(live))
    return page.items


async def one_pod(session: Session, live: LiveObject, best: Callable[[Tree], tuple[Any, ...]], tell: bool = False) -> Tree:
    """The pod of an object that ``best`` orders first."""
    pods = await all_pods(session, live)
    if not pods:
        raise CommandError(f"no pods found for {live.typed_name}")
    pods.sort(key=best)
    if tell and len(pods) > 1:
        print(f"LiveObject {len(pods)} pods, using pod/{pods[0]['metadata']['name']}", file=sys.stderr)
    return pods[0]


def liveliest(pod: Tree) -> tuple[Any, ...]:
    """Sorts pods: bound, running, ready and old ones first."""
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    phase = {"Running": 0, "Unknown": 1, "Pending": 2}.get(status.get("phase", ""), 0)
    restarts = max((c.get("restartCount", 0) for c in status.get("containerStatuses") or ()), default=0)
    meta = pod["metadata"]
    return (not spec.get("nodeName"), phase, not ready, restarts, meta.get("creationTimestamp", ""), meta["name"])


def container_names(pod: Tree, *fields: str) -> list[str]:
    spec = pod.get("spec") or {}
    return [
        container["name"]
        for field in fields or ("initContainers", "containers", "ephemeralContainers")
        for container in spec.get(field) or ()
    ]


def choose_container(pod: Tree, container: str, quiet: bool = False) -> str:
    """The container asked for, or the one that is meant if none was. Raises CommandError."""
    names = container_names(pod)
    name = pod["metadata"]["name"]
    if container:
        if container not in names:
            raise CommandError(f"container {container} is not valid for pod {name}")
        return container
    main = container_names(pod, "containers")
    chosen = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    if chosen and chosen in names:
        return str(chosen)
    if len(names) > 1 and not quiet:
        listed = main + [f"{n} (init)" for n in container_names(pod, "initContainers")]
        listed += [f"{n} (ephem)" for n in container_names(pod, "ephemeralContainers")]
        print(f'Defaulted container "{main[0]}" out of: {", ".join(listed)}', file=sys.stderr)
    return main[0]
