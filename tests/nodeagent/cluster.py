"""An agent on the simulated runtime against a tiny API server, in virtual time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from navarch.api import errors
from navarch.api.times import format_time
from navarch.client.client import Client
from navarch.client.transport import InProcessTransport
from navarch.world import World
from nodeagent.agent import Agent
from nodeagent.config import Config
from nodeagent.runtime.runtime import Runtime
from tests.client.double import Double

NODE = "/api/v1/nodes/n1"


class Api(Double):
    """The double, with what an agent needs more: status patches, graceful deletion, tokens."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.tokens = 0

    def _answer(self, method: str, path: str, query: dict[str, str], body: Any, scope: Any) -> Any:
        if path.endswith("/token"):
            self.tokens += 1
            until = format_time(self.world.now() + body["spec"]["expirationSeconds"])
            return {"status": {"token": f"token-{self.tokens}", "expirationTimestamp": until}}
        if method == "PATCH" and path.endswith("/status"):
            return self._patch_status(path.removesuffix("/status"), body)
        if method == "DELETE" and "/pods/" in path and path in self.objects:
            grace = (body or {}).get("gracePeriodSeconds")
            uid = ((body or {}).get("preconditions") or {}).get("uid")
            meta = self.objects[path]["metadata"]
            if uid and uid != meta["uid"]:
                raise errors.Conflict("the UID in the precondition does not match")
            if grace != 0:
                self.delete(path, 30 if grace is None else grace)
                return self.objects[path]
        answer = super()._answer(method, path, query, body, scope)
        if method == "POST" and path == "/api/v1/nodes":
            answer = self.put(NODE, answer | {"spec": {"podCIDR": "10.1.2.0/24"}})
        return answer

    def _patch_status(self, path: str, body: Any) -> Any:
        if path not in self.objects:
            raise errors.NotFound("gone")
        old = self.objects[path]
        status = dict(old.get("status") or {})
        for key, value in body["status"].items():
            if key == "conditions":
                known = {c["type"]: c for c in status.get("conditions", ())}
                for condition in value:
                    if condition.get("$patch") == "delete":
                        known.pop(condition["type"], None)
                        continue
                    merged = known.get(condition["type"], {}) | condition
                    known[condition["type"]] = {k: v for k, v in merged.items() if v is not None}
                status[key] = list(known.values())
            elif value is None:
                status.pop(key, None)
            elif key in ("capacity", "allocatable"):
                status[key] = {k: v for k, v in ((status.get(key) or {}) | value).items() if v is not None}
            elif isinstance(value, list):
                status[key] = [v for v in value if "$patch" not in v]
            else:
                status[key] = value
        return self.put(path, old | {"status": status})

    # --- what a test does ---

    def pod(self, name: str, spec: dict[str, Any], namespace: str = "ns", **meta: Any) -> str:
        """Creates a pod that is bound to the node already; its path."""
        for c in [*spec["containers"], *spec.get("initContainers", ())]:
            c.setdefault("image", "web:1")
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        tree = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, **meta},
            "spec": {"nodeName": "n1", "restartPolicy": "Always", **spec},
            "status": {"phase": "Pending"},
        }
        self.put(path, tree)
        return path

    def delete(self, path: str, grace: int = 30) -> None:
        old = self.objects[path]
        meta = old["metadata"] | {
            "deletionTimestamp": format_time(self.world.now() + grace),
            "deletionGracePeriodSeconds": grace,
        }
        self.put(path, old | {"metadata": meta})

    def config_map(self, name: str, data: dict[str, str], namespace: str = "ns") -> None:
        path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        self.put(path, {"metadata": {"name": name, "namespace": namespace}, "data": data})

    def secret(self, name: str, data: dict[str, str], namespace: str = "ns") -> None:
        path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        held = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
        self.put(path, {"metadata": {"name": name, "namespace": namespace}, "data": held})

    def status(self, path: str) -> dict[str, Any]:
        return self.objects.get(path, {}).get("status") or {}

    def phase(self, path: str) -> str:
        return self.status(path).get("phase", "")

    def ready(self, path: str) -> bool:
        return any(c["type"] == "Ready" and c["status"] == "True" for c in self.status(path).get("conditions", ()))

    def reason(self, path: str, index: int = 0) -> str:
        """Why a container waits or ended."""
        found = (self.status(path).get("containerStatuses") or [{}])[index].get("state", {})
        return next(iter(found.values()), {}).get("reason", "")

    def events(self, reason: str) -> list[str]:
        return [o["message"] for p, o in self.objects.items() if "/events/" in p and o["reason"] == reason]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Waits for the API to be so."""
        while not condition():
            await self.changed.wait()


def config(folder: Path, **more: Any) -> Config:
    values: dict[str, Any] = {
        "node_name": "n1",
        "node_ip": "10.0.0.1",
        "root_dir": folder / "root",
        "run_dir": folder / "run",
        "cpu": "4",
        "memory": "4Gi",
        "cluster_dns": ("10.96.0.10",),
        "use_tmpfs": False,
    }
    return Config(**(values | more))


@contextlib.asynccontextmanager
async def agent(world: World, api: Api, runtime: Runtime, settings: Config) -> AsyncIterator[Agent]:
    """A running agent; leaving ends it, and leaves its containers."""
    made = Agent(settings, Client(InProcessTransport(api, "agent"), world), world, runtime)
    task = asyncio.ensure_future(made.run())
    waiting = asyncio.ensure_future(made.ready.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()
    try:
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
