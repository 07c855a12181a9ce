"""From what a person names (a pod, a deployment, a service) to the pod that is meant, and its containers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from cli.errors import CommandError
from cli.session import Session, Tree
from cli.targets import Found
from navarch.api import selectors, wellknown
from navarch.api.kinds import KINDS
from navarch.client.client import ResourceClient

DEFAULT_CONTAINER = wellknown.DEFAULT_CONTAINER
POD = next(kind for kind in KINDS if kind.kind == "Pod")


def pods_client(session: Session) -> ResourceClient[Tree]:
    return session.client.tree(POD)


def selector_of(found: Found) -> str:
    """The label selector of the pods that belong to an object. Raises CommandError if it has none."""
    selector = (found.tree.get("spec") or {}).get("selector")
    if found.resource.kind.kind == "Service":
        if not selector:
            raise CommandError(f"invalid service '{found.name}': Service is defined without a selector")
        return str(selectors.from_labels(selector))
    if found.resource.kind.kind == "ReplicationController":
        return str(selectors.from_labels(selector))
    if isinstance(selector, dict):
        return str(selectors.from_tree(selector))
    raise CommandError(f"cannot get the logs from {found.resource.kind.api_version}, Kind={found.resource.kind.kind}")


async def all_pods(session: Session, found: Found) -> list[Tree]:
    """The pods of an object; of a pod, itself."""
    if found.resource.full == "pods":
        return [found.tree]
    page = await pods_client(session).list(found.namespace, label_selector=selector_of(found))
    return page.items


async def one_pod(session: Session, found: Found, best: Callable[[Tree], tuple[Any, ...]], tell: bool = False) -> Tree:
    """The pod of an object that ``best`` orders first."""
    pods = await all_pods(session, found)
    if not pods:
        raise CommandError(f"no pods found for {found.typed_name}")
    pods.sort(key=best)
    if tell and len(pods) > 1:
        print(f"Found {len(pods)} pods, using pod/{pods[0]['metadata']['name']}", file=sys.stderr)
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


def choose_container(pod: Tree, wanted: str, quiet: bool = False) -> str:
    """The container asked for, or the one that is meant if none was. Raises CommandError."""
    known = container_names(pod)
    name = pod["metadata"]["name"]
    if wanted:
        if wanted not in known:
            raise CommandError(f"container {wanted} is not valid for pod {name}")
        return wanted
    main = container_names(pod, "containers")
    chosen = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    if chosen and chosen in known:
        return str(chosen)
    if len(known) > 1 and not quiet:
        listed = main + [f"{n} (init)" for n in container_names(pod, "initContainers")]
        listed += [f"{n} (ephem)" for n in container_names(pod, "ephemeralContainers")]
        print(f'Defaulted container "{main[0]}" out of: {", ".join(listed)}', file=sys.stderr)
    return main[0]
