"""The journal of a pod's node agent in lines for people: what it saw, what it was told, what it decided."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cli.errors import CommandError
from navarch.api.errors import NotFound
from navarch.api.kinds import BY_GVK

if TYPE_CHECKING:
    from cli.session import Session

Tree = dict[str, Any]
POD = BY_GVK["", "v1", "Pod"]


async def journal_of(session: Session, name: str) -> Tree:
    """The journal of a pod, from the agent of its node through the API server. Raises CommandError."""
    pod = await session.client.tree(POD).get(name, session.namespace)
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        raise CommandError(f"pod {name} is on no node yet", hint=f"navarch why {name}")
    try:
        journal: Tree = await session.client.get_json(
            f"/api/v1/nodes/{node}/proxy/navarch/journal/{session.namespace}/{name}"
        )
    except NotFound as error:
        raise CommandError(f"the agent of {node} has no journal of this pod: {error}") from None
    return journal


def journal_lines(journal: list[Tree]) -> list[str]:
    """One line for each change of what was seen and for each thing done."""
    out: list[str] = []
    before: dict[str, str] = {}
    when = ""
    for entry in journal:
        if "told" in entry:
            words = " ".join(str(a if not isinstance(a, dict) else a.get("name", "")) for a in entry["args"] if a is not None)
            out.append(f"{when:<12}  told     {entry['told']} {words}".rstrip())
        if "now" not in entry:
            continue
        when = datetime.fromtimestamp(entry["now"], UTC).strftime("%H:%M:%S.%f")[:-3]
        states = _states(entry["seen"])
        for thing in [*states, *(name for name in before if name not in states)]:
            if states.get(thing) != before.get(thing):
                out.append(f"{when:<12}  saw      {thing} {states.get(thing, 'gone')}")
        before = states
        decided = entry.get("decided") or {}
        out += [f"{when:<12}  decided  {_action(action)}" for action in decided.get("actions") or ()]
    return out or ["nothing yet"]


def _states(observation: Tree) -> dict[str, str]:
    """The things that were seen, by name, in a few words."""
    out: dict[str, str] = {}
    for sandbox in observation.get("sandboxes") or ():
        state = "ready" if sandbox["ready"] else "not ready"
        out[f"sandbox {sandbox['id'][:12]}"] = f"{state} {sandbox.get('ip') or ''}".rstrip()
    for container in observation.get("containers") or ():
        text = container["state"]
        if text == "exited":
            text += f" with code {container['exit_code']}" + (f" ({container['reason']})" if container["reason"] else "")
        probe = (observation.get("probes") or {}).get(container["id"]) or {}
        for word in ("started", "ready"):
            if probe.get(word) is not None:
                text += f", {'' if probe[word] else 'not '}{word}"
        if probe.get("failed"):
            text += f", {probe['failed'].lower()} probe failed"
        out[f"container {container['name']} #{container['attempt']}"] = text
    if observation.get("gone"):
        out["the pod"] = "deleted from the API"
    return out


def _action(action: Tree) -> str:
    shown = ("name", "attempt", "why", "reason", "message")
    details = [str(action[key])[:60] for key in shown if action.get(key) not in (None, "")]
    return " ".join([action["do"], *details])
