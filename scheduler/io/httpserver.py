"""The scheduler's HTTP server, on a unix socket or a loopback address: health, metrics, and explanations.

    /explain?namespace=NS&pod=POD[&node=NODE][&live=1]   the last decision about a pod, or what would be decided now
    /what-if?pod=OBJECT[&node=NODE]                      a dry run; OBJECT is the pod's JSON, zlib, base64 (URL alphabet)

Nothing here can change anything. Over a socket whoever can open its file may ask; over TCP all but health needs a bearer token
whose user may get the path (see navarch/client/delegated.py).
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from prometheus_client import generate_latest

from navarch.api import kinds
from navarch.api.types import core_v1
from navarch.client.health import Handler, Page, health_pages
from scheduler.explain.explain import explain, explain_failure
from scheduler.explain.whatif import ask, changes
from scheduler.framework.blame import blame
from scheduler.framework.plugin import Profile
from scheduler.scheduler import Scheduler
from scheduler.state.pods import PodInfo

JSON = "application/json"
MAX_BODY = 1 << 20  # bytes of a pod


def pages(scheduler: Scheduler) -> Mapping[str, Handler]:
    def one(query: str) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(query).items()}

    def explanation(query: str) -> Page:
        args = one(query)
        try:
            return _json(_explain(scheduler, args.get("namespace", "default"), args.get("pod", ""), args))
        except Exception as error:  # a plugin may fail here as anywhere
            return _json({"error": str(blame(error))}, 500)

    def what_if(query: str) -> Page:
        args = one(query)
        try:
            raw = zlib.decompressobj().decompress(base64.urlsafe_b64decode(args.get("pod", "")), MAX_BODY)
            pod = kinds.decoder(core_v1.Pod).decode(raw)
        except (ValueError, zlib.error, binascii.Error, msgspec.MsgspecError) as error:
            return 400, JSON, msgspec.json.encode({"error": f"no pod: {error}"})
        pod.metadata.namespace = pod.metadata.namespace or "default"
        profile = scheduler.profiles.get(pod.spec.scheduler_name or next(iter(scheduler.profiles)))
        if profile is None:
            return _json({"error": f'no profile "{pod.spec.scheduler_name}" here'}, 404)
        try:
            return _json(_ask(scheduler, PodInfo(pod), profile, args))
        except Exception as error:
            return _json({"error": str(blame(error))}, 500)

    out = health_pages(
        lambda: "" if scheduler.ready else "caches are not synced", lambda: generate_latest(scheduler.metrics.registry)
    )
    return out | {"/explain": explanation, "/what-if": what_if}


def _json(tree: Mapping[str, Any], status: int = 0) -> Page:
    return status or (404 if "error" in tree else 200), JSON, msgspec.json.encode(tree)


def _ask(scheduler: Scheduler, pod: PodInfo, profile: Profile, args: Mapping[str, str]) -> dict[str, Any]:
    """The decision that would be made now, as far as the plugins say: extenders are told of real decisions only."""
    out = ask(pod, scheduler.table, profile, scheduler.world.now(), args.get("node", ""))
    if others := scheduler.extenders.interested(pod):
        out["notAsked"] = [e.name for e in others]
    return out


def _explain(scheduler: Scheduler, namespace: str, name: str, args: Mapping[str, str]) -> dict[str, Any]:
    pod = scheduler.pods.get(namespace, name)
    record = scheduler.recent.get(f"{namespace}/{name}")
    if pod is None and record is None:  # (what failed is known as long as its pod is)
        return {"error": f'the scheduler knows no pod "{name}" in namespace "{namespace}"'}
    if record is not None and pod is not None and record.decision.pod.uid != pod.metadata.uid:
        record = None  # another pod of that name
    failure = scheduler.recent.failure(f"{namespace}/{name}")
    if failure is not None and pod is not None and failure.pod.uid != pod.metadata.uid:
        failure = None
    profile = scheduler.profiles.get(pod.spec.scheduler_name or "") if pod else None
    if failure is not None and not args.get("live"):
        out = explain_failure(failure)
    elif record is None or args.get("live"):
        if pod is None or profile is None:
            return {"error": f'pod "{name}" belongs to another scheduler: {pod and pod.spec.scheduler_name}'}
        out = _ask(scheduler, PodInfo(pod), profile, args)
    else:
        out = explain(record, args.get("node", ""))
    if pod is not None:
        permit = scheduler.waiting.get(pod.metadata.uid or "")
        if permit is not None:
            out["waitsFor"] = {"node": permit.node, "plugins": permit.pending}
        out["boundTo"] = pod.spec.node_name or ""
        waiting = scheduler.queue.pods.get(pod.metadata.uid or "")
        if waiting is not None:
            out["queue"] = {"place": waiting.place, "attempts": waiting.attempts}
            if waiting.gate:
                out["queue"]["gate"] = waiting.gate
            if not out["node"] and profile is not None and "changes" not in out:
                out["changes"] = changes(waiting.pod, scheduler.table, profile)
    return out
