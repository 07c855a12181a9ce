"""All components in one process on virtual time, fed with objects that nobody would write. As a program:

    python -m tests.fuzz.everything SEED OBJECTS [webhook]

Random objects of nearly every kind are created, changed (status too) and deleted in namespaces of their own. Meanwhile a
canary must go on working: a Deployment is rolled, Jobs complete, a Service has its endpoints. In the end all of it is
deleted, and must go. No component may end, no answer may be a 5xx, and nothing may be logged as a mistake.

What an object costs does not depend on how many there were before. Hence bounds: workloads have few replicas (but in the
namespace "c", whose quota stops them), and what others leave behind (orphans, claims, Events) is swept away.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import random
import re
import sys
from collections import Counter
from typing import Any

import orjson

from apiserver.admission.webhooks.webhooks import MutatingAdmissionWebhook
from lab.simulation import Simulation
from lab.simulation.cluster import node_specs
from navarch.api import kinds
from navarch.api.conditions import is_true
from navarch.api.errors import StatusError
from navarch.api.kinds import Kind
from navarch.api.schema import schema_of
from navarch.api.types import apps_v1, batch_v1, core_v1, discovery_v1
from navarch.client.inprocess import InProcessTransport
from navarch.client.transport import Query, Response
from nodeagent.hollow.objects import NodeSpec
from tests.fuzz.objects import KINDS, SAFE, Objects
from tests.fuzz.support import WEBHOOK, Webhook

log = logging.getLogger(__name__)
Tree = dict[str, Any]
SPACES = ("a", "b", "c")
BATCH = 50
ALIVE = 100
"""Objects beyond so many are deleted, the oldest first."""
CHECK_EVERY = 1000
"""Objects between two looks at the canary, and between two sweeps."""
COUNTS = ("replicas", "parallelism", "completions", "minReplicas")
FEW = 3
"""What the counts of a workload are at most, but in LIMITED."""
LIMITED, MOST_PODS = "c", "12"
MORE = ("resourcequotas", "limitranges", "customresourcedefinitions")
WORKED_ON = (
    "pods", "nodes", "services", "endpoints", "endpointslices", "deployments", "replicasets", "statefulsets", "daemonsets",
    "jobs", "cronjobs", "replicationcontrollers", "poddisruptionbudgets", "persistentvolumeclaims", "persistentvolumes",
)  # fmt: skip
"""What components have most to do with: made four times as often as others."""
MADE: tuple[Kind, ...] = (
    *SAFE,
    *(kind for kind in KINDS if kind.resource in MORE),
    *(kind for kind in SAFE if kind.resource in WORKED_ON for _ in range(3)),
)
PATIENCE = 600.0
KEPT = ("apiservices",)
"""What no sweep looks at."""
OWN = re.compile(r"f\d+|w\d+s\..*|10\.9\.\d+\.\d+")
"""Names of what the fuzz makes beside namespaces."""
CANARY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: canary}
spec:
  replicas: 3
  selector: {matchLabels: {canary: web}}
  template:
    metadata: {labels: {canary: web}}
    spec:
      priorityClassName: system-cluster-critical
      nodeSelector: {canary: here}
      tolerations: [{operator: Exists}]
      containers: [{name: web, image: "web:VERSION", readinessProbe: {httpGet: {port: 80}}}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: canary}
spec: {selector: {canary: web}, ports: [{port: 80}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: work-VERSION, namespace: canary}
spec:
  completions: 2
  ttlSecondsAfterFinished: 60
  template:
    metadata: {annotations: {hollow.navarch.dev/run: 2s}}
    spec:
      priorityClassName: system-cluster-critical
      nodeSelector: {canary: here}
      tolerations: [{operator: Exists}]
      restartPolicy: Never
      containers: [{name: c, image: work}]
"""


class Mistakes(logging.Handler):
    """Keeps what is logged as an error, or with a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.texts.append(self.format(record))


class Run:
    """One run; see the module. What went wrong is in ``failures``, a text each, with the objects that it names."""

    def __init__(self, cluster: Simulation, seed: int, kinds: tuple[Kind, ...] = MADE) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.objects = Objects(self.random, namespaces=SPACES, kinds=kinds)
        self.alive: dict[tuple[Kind, str | None, str], None] = {}
        self.bodies: dict[str, str] = {}  # by name: what was sent
        self.answers: Counter[int] = Counter()
        self.failures: dict[str, str] = {}
        self.made = 0
        self._version = 0
        self._transport = InProcessTransport(cluster.server.app, cluster.client.transport.inner.user)  # type: ignore[attr-defined]

    async def meddle(self) -> None:
        """From now on a webhook changes at random what anybody, components too, writes in the namespaces of the fuzz."""
        plugin = next(p for p in self.cluster.server.admission.plugins if isinstance(p, MutatingAdmissionWebhook))
        plugin.client = Webhook(self.patches)  # type: ignore[assignment]
        path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
        await self.cluster.client.request("POST", path, body=orjson.dumps(WEBHOOK))

    def patches(self, request: Tree) -> list[Tree]:
        """What the webhook does to one request: mostly nothing, else a field or two of the object, whatever it is."""
        if request.get("namespace") not in SPACES or self.random.random() < 0.7:
            return []
        group, version, kind = (request["kind"][k] for k in ("group", "version", "kind"))
        known = kinds.BY_GVK.get((group, version, kind))
        old = request["object"]
        if known is None:
            return []
        new = copy.deepcopy(old)
        self.objects.mutate(new, schema_of(known.type), self.random.choice((1, 2)))
        return [
            {"op": "add", "path": f"/{key}", "value": new[key]} for key in new if key not in old or new[key] != old[key]
        ]

    async def play(self, count: int, webhook: bool = False) -> None:
        client = self.cluster.client
        if webhook:
            await self.meddle()
        for name in (*SPACES, "canary"):
            await client.tree(_kind("namespaces")).create({"metadata": {"name": name}})
        quota = {"metadata": {"name": "most"}, "spec": {"hard": {"pods": MOST_PODS}}}
        await client.tree(_kind("resourcequotas")).create(quota, LIMITED)
        await self.canary()
        while self.made < count:
            for _ in range(min(BATCH, count - self.made)):
                await self.step()
            await self.cluster.sleep(self.random.choice((0.0, 0.5, 2.0, 10.0)))
            while len(self.alive) > ALIVE:
                await self.delete(next(iter(self.alive)))
            if self.made % CHECK_EVERY < BATCH:
                await self.canary()
                await self.sweep()
                log.info("%d objects, answers %s, at %.0f s", self.made, dict(self.answers), self.cluster.world.monotonic())
        await self.canary()
        await self.end()

    async def step(self) -> None:
        self.made += 1
        kind, tree = self.objects.one()
        bound(tree)
        where, name = tree["metadata"].get("namespace"), tree["metadata"]["name"]
        made = await self.ask("POST", kind.path(where), tree)
        if made is None:
            return
        self.alive[kind, where, name] = None
        if self.random.random() < 0.3:
            await self.change(kind, where, name, made)

    async def change(self, kind: Kind, where: str | None, name: str, tree: Tree) -> None:
        new = copy.deepcopy(tree)
        self.objects.mutate(new, schema_of(kind.type), self.random.choice((1, 2, 4)))
        if not isinstance(new.get("metadata"), dict):
            return
        bound(new)
        new["metadata"] |= {"name": name, "finalizers": None, "resourceVersion": tree["metadata"]["resourceVersion"]}
        new["metadata"].pop("deletionTimestamp", None)
        sub = "status" if self.random.random() < 0.5 else None
        await self.ask("PUT", kind.path(where, name, sub), new)

    async def delete(self, which: tuple[Kind, str | None, str]) -> None:
        kind, where, name = which
        del self.alive[which]
        self.bodies.pop(name, None)
        options: Tree = {"propagationPolicy": self.random.choice(("Background", "Foreground", "Orphan"))}
        if self.random.random() < 0.5:
            options["gracePeriodSeconds"] = self.random.choice((0, 1, 30))
        await self.ask("DELETE", kind.path(where, name), options)

    async def sweep(self, owned: bool = False) -> None:
        """Deletes what nobody keeps any more: orphans, claims, what a webhook gave finalizers, Events. ``owned``: what says
        that it has an owner, too."""
        for where in (*SPACES, "default"):
            await self.ask("DELETE", _kind("events").path(where), {})
        for kind in KINDS:
            if kind.resource in KEPT or (kind.resource == "events" and not owned):
                continue
            answer = await self.cluster.client.request("GET", kind.path())
            for item in orjson.loads(answer.body).get("items") or ():
                metadata = item["metadata"]
                where, name = metadata.get("namespace"), metadata["name"]
                if (where not in SPACES if where else not OWN.fullmatch(name)) or (kind, where, name) in self.alive:
                    continue
                if name == "most" or (not owned and any(r.get("controller") for r in metadata.get("ownerReferences") or ())):
                    continue
                path, spec = kind.path(where, name), item.get("spec") or {}
                if metadata.get("deletionTimestamp") and spec.get("finalizers") and kind.resource == "namespaces":
                    spec["finalizers"] = [f for f in spec["finalizers"] if f == "kubernetes"]
                    await self.ask("PUT", kind.path(where, name, "finalize"), item)
                if metadata.get("deletionTimestamp") and metadata.get("finalizers"):
                    await self.ask("PATCH", path, {"metadata": {"name": name, "finalizers": None}})
                await self.ask("DELETE", path, {"propagationPolicy": "Background", "gracePeriodSeconds": 0})

    async def end(self) -> None:
        """Deletes all of it, and waits until all has gone."""
        while self.alive:
            await self.delete(next(iter(self.alive)))
        for name in SPACES:
            await self.ask("DELETE", _kind("namespaces").path(None, name), {})
        deadline = self.cluster.world.monotonic() + PATIENCE
        while left := await self.left():
            if self.cluster.world.monotonic() > deadline:
                raise TimeoutError(f"not within {PATIENCE} s of virtual time: all is deleted; left: {list(left.items())[:5]}")
            await self.cluster.sleep(10.0)
            await self.sweep(owned=True)
        await self.canary()

    async def left(self) -> dict[str, bytes]:
        """Keys and values of what is still there of the fuzz."""
        items = (await self.cluster.server.store.list("/registry/")).items
        spaces = {f"/{name}/" for name in SPACES}
        found = {i.key: i.value for i in items if not i.key.startswith("/registry/allocations/")}
        return {
            k: v for k, v in found.items() if any(s in k for s in spaces) or OWN.fullmatch(k.rsplit("/", 1)[1])
        }

    async def ask(self, method: str, path: str, body: Tree) -> Tree | None:
        """What the API made of it, None if it refused."""
        text = orjson.dumps(body)
        if method != "DELETE":
            self.bodies[body["metadata"]["name"]] = f"{method} {path} {text.decode()}"
        try:
            more = {"content_type": "application/merge-patch+json"} if method == "PATCH" else {}
            answer = await self.cluster.client.request(method, path, body=text, **more)
        except StatusError as error:
            self.answers[error.http_code] += 1
            return None
        self.answers[200] += 1
        tree: Tree = orjson.loads(answer.body)
        return tree if tree.get("kind") != "Status" else None

    async def canary(self) -> None:
        """Rolls the canary, and waits until all of it is well."""
        self._version += 1
        version = f"v{self._version}"
        await self.cluster.apply(CANARY.replace("VERSION", version))
        await self.cluster.run_until(lambda: self.well(version), PATIENCE, f"the canary is well at {version}")

    def well(self, version: str) -> bool:
        cluster = self.cluster
        web = cluster.object(apps_v1.Deployment, "web", "canary")
        done = web is not None and web.status.observed_generation == web.metadata.generation
        rolled = done and web is not None and web.status.updated_replicas == 3 == web.status.available_replicas
        if not rolled or cluster.ready_pods("canary", f"web:{version}") != 3:
            return False
        slices = cluster.objects(discovery_v1.EndpointSlice, "canary")
        addresses = {a for s in slices for e in s.endpoints or () if e.conditions and e.conditions.ready for a in e.addresses}
        pods = [p for p in cluster.objects(core_v1.Pod, "canary") if (p.metadata.labels or {}).get("canary") == "web"]
        if addresses != {p.status.pod_ip for p in pods if p.metadata.deletion_timestamp is None}:
            return False
        job = cluster.object(batch_v1.Job, f"work-{version}", "canary")
        return job is None or is_true(job.status.conditions, "Complete")

    def blame(self, text: str) -> str:
        """The text with the objects that it names."""
        names = dict.fromkeys(re.findall(r"\bf\d+\b", text))
        return "\n".join([text, *(self.bodies[n][:3000] for n in names if n in self.bodies)])


def bound(tree: Tree) -> None:
    """Leaves what the counts of a workload cost within bounds, in place."""
    if tree["metadata"].get("namespace") == LIMITED:
        return
    spec = tree.get("spec")
    for field in COUNTS if isinstance(spec, dict) else ():
        if isinstance(spec.get(field), int) and spec[field] > FEW:
            spec[field] = spec[field] % FEW + 1


def _kind(resource: str) -> Kind:
    return next(kind for kind in KINDS if kind.resource == resource)


class Watched(InProcessTransport):
    """Notes every answer that blames the server."""

    failed: list[str] = []
    webhook = False
    """Whether a 500 may blame a webhook. One that is the server's own mistake is in the log with a traceback."""


    async def request(self, method: str, path: str, *, query: Query = (), body: bytes | None = None, **kw: Any) -> Response:
        answer = await super().request(method, path, query=query, body=body, **kw)
        if answer.status >= 500 and not (self.webhook and b'"InternalError"' in answer.body):
            self.failed.append(f"{method} {path} {(body or b'').decode()[:2000]} -> {answer.body.decode()[:2000]}")
        return answer


def nodes() -> list[NodeSpec]:
    return [NodeSpec(n.name, address=n.address, labels={"canary": "here"}, pods=1000) for n in node_specs(3)]


def play(seed: int, count: int, webhook: bool = False, checks: bool = False) -> tuple[Run, list[str]]:
    """Runs it; gives the run and what went wrong. ``checks``: see Simulation."""
    import lab.simulation.cluster as module

    mistakes = Mistakes()
    root = logging.getLogger()
    root.addHandler(mistakes)
    Watched.failed, Watched.webhook = [], webhook
    inner, module.InProcessTransport = module.InProcessTransport, Watched  # type: ignore[attr-defined]
    runs: list[Run] = []

    async def scenario(cluster: Simulation) -> None:
        runs.append(Run(cluster, seed))
        await runs[0].play(count, webhook)

    trouble = []
    try:
        Simulation(seed, nodes=nodes(), history=False, checks=checks).run(scenario)
    except (Exception, asyncio.CancelledError) as error:
        import traceback

        trouble.append("".join(traceback.format_exception(error))[-6000:])
    finally:
        root.removeHandler(mistakes)
        module.InProcessTransport = inner  # type: ignore[attr-defined]
    run = runs[0]
    return run, [run.blame(text) for text in itertools.chain(trouble, Watched.failed, mistakes.texts)]


def main(arguments: list[str]) -> int:
    seed, count = int(arguments[0]), int(arguments[1])
    logging.basicConfig(level=logging.CRITICAL)
    log.setLevel(logging.INFO)
    run, wrong = play(seed, count, "webhook" in arguments)
    print(f"{run.made} objects, answers {dict(run.answers)}, {run.cluster.world.monotonic():.0f} s of virtual time")
    print(len(wrong), "mistakes")
    seen: Counter[str] = Counter()
    for text in wrong:
        lines = [line for line in text.splitlines() if re.match(r"[\w.]+(Error|Exception|Timeout)", line)]
        mark = re.sub(r"\d+", "#", (lines or text.splitlines() or [""])[-1])[:100]
        seen[mark] += 1
        if seen[mark] <= 1:
            print("=" * 100)
            print(text[-5000:])
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
