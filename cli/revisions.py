"""The revisions of a deployment: its replica sets, each with the pod template of one revision."""

from __future__ import annotations

import json
from typing import Any

from cli.describing.pod_template import template_lines as lines_of_template
from cli.errors import CommandError
from cli.output.tables import Columns
from cli.session import Session, Tree
from cli.targets import LiveObject
from navarch.api import selectors, wellknown

REVISION = wellknown.REVISION
CHANGE_CAUSE = "kubernetes.io/change-cause"
HASH = "pod-template-hash"
# Annotations of a replica set that are about itself, not about the deployment it was made for.
NOT_ROLLED_BACK = (
    wellknown.LAST_APPLIED,
    REVISION,
    wellknown.REVISION_HISTORY,
    wellknown.DESIRED_REPLICAS,
    wellknown.MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
)


def revision_of(tree: Tree) -> int:
    """0 if it has none yet."""
    text = (tree["metadata"].get("annotations") or {}).get(REVISION, "")
    return int(text) if text.isdigit() else 0


async def replica_sets(session: Session, deployment: Tree) -> dict[int, Tree]:
    """The replica sets that a deployment owns, by revision, in order."""
    resource = await session.resource("replicasets.apps")
    selector = str(selectors.from_tree(deployment["spec"].get("selector")))
    page = await session.of(resource).list(deployment["metadata"]["namespace"], label_selector=selector)
    uid = deployment["metadata"]["uid"]
    owned = [
        item
        for item in page.items
        if any(o.get("uid") == uid and o.get("controller") for o in item["metadata"].get("ownerReferences") or ())
    ]
    return {revision_of(item): item for item in sorted(owned, key=revision_of)}


def history_lines(owned: dict[int, Tree]) -> list[str]:
    rows = [["REVISION", "CHANGE-CAUSE"]]
    for number, item in owned.items():
        cause = (item["metadata"].get("annotations") or {}).get(CHANGE_CAUSE) or "<none>"
        rows.append([str(number), cause])
    return Columns(padding=2).lines(rows)


def template_lines(replica_set: Tree) -> list[str]:
    template = dict(replica_set["spec"]["template"])
    cause = (replica_set["metadata"].get("annotations") or {}).get(CHANGE_CAUSE)
    if cause:
        meta = dict(template.get("metadata") or {})
        template["metadata"] = meta | {"annotations": (meta.get("annotations") or {}) | {CHANGE_CAUSE: cause}}
    return lines_of_template(template, tabs=True)


def _template(replica_set: Tree) -> Tree:
    """A replica set's pod template as the deployment had it: without the hash label."""
    template: Tree = json.loads(json.dumps(replica_set["spec"]["template"]))
    labels = template.get("metadata", {}).get("labels") or {}
    labels.pop(HASH, None)
    return template


def _chosen(owned: dict[int, Tree], to_revision: int, name: str) -> Tree:
    if to_revision:
        if to_revision not in owned:
            raise CommandError(f"unable to find specified revision {to_revision} in history")
        return owned[to_revision]
    if len(owned) < 2:
        raise CommandError(f'no rollout history found for deployment "{name}"')
    return list(owned.values())[-2]


async def undo(session: Session, live: LiveObject, to_revision: int, dry_run: str) -> str:
    """Puts an earlier template back; gives what to say about it."""
    deployment = live.tree
    if deployment["spec"].get("paused"):
        raise CommandError(
            "you cannot rollback a paused deployment; resume it first with 'navarch rollout resume' and try again"
        )
    chosen = _chosen(await replica_sets(session, deployment), to_revision, live.name)
    template = _template(chosen)
    if template == deployment["spec"]["template"]:
        return f"skipped rollback (current template already matches revision {revision_of(chosen)})"
    if dry_run == "client":
        from cli.describing.pod_template import template_lines

        return "\n".join(template_lines(template)) + " (dry run)"
    old_annotations = deployment["metadata"].get("annotations") or {}
    annotations = {k: old_annotations[k] for k in NOT_ROLLED_BACK if k in old_annotations}
    restored = chosen["metadata"].get("annotations") or {}
    annotations |= {k: v for k, v in restored.items() if k not in NOT_ROLLED_BACK}
    patch: list[dict[str, Any]] = [
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": "replace" if old_annotations else "add", "path": "/metadata/annotations", "value": annotations},
    ]
    await session.of(live.resource).patch(
        live.name, live.namespace, patch, "json", dry_run=dry_run == "server", field_manager="kubectl-rollout"
    )
    return "rolled back" + (" (server dry run)" if dry_run == "server" else "")
