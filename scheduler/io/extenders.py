"""HTTP extenders: webhooks that filter and rank nodes, choose victims, and bind (kube-scheduler's extender/v1).

An extender is asked after the plugins, about the nodes that they left, and only about pods that it cares for. It answers in
its own time: meanwhile the cluster may have changed. So its answer is kept and applied to a ranking that is made anew when it
is there: nodes that it was not asked about do not count.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from navarch.api.durations import parse_duration
from navarch.api.pods import all_containers
from navarch.client.https import HTTPSTransport
from navarch.client.kubeconfig import Config
from navarch.client.transport import TransportError
from scheduler.framework.config import ExtenderConfig, ExtenderTLS
from scheduler.framework.outcomes import Failed
from scheduler.ranking.ranking import Ranking
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo

FULL_SCORE = 10  # the most that an extender gives a node; a plugin gives 100
_encode = msgspec.json.Encoder().encode
Victims = Mapping[str, tuple[Sequence[PodInfo], int]]
"""node -> the pods that would go there, and how many of them break a disruption budget"""


@dataclass
class Answers:
    """The extenders' answers on the nodes ``names``: who refused which node and why, and the points of the others."""

    names: frozenset[str] = frozenset()
    failed: dict[str, tuple[str, str, bool]] = field(default_factory=dict)  # node -> extender, reason, resolvable
    points: dict[str, float] = field(default_factory=dict)

    def apply(self, ranking: Ranking, table: NodeTable) -> None:
        """Brings a ranking of the same pod, which nobody else uses, in line with the answers."""
        for name, row in table.rows.items():
            if ranking.refused[row]:
                continue
            refusal = self.failed.get(name)
            if refusal is not None:
                ranking.refuse(row, *refusal)
            elif name not in self.names:
                ranking.refuse(row, "extenders", "node(s) changed while extenders were asked", False)
        ranking.favour({table.rows[name]: points for name, points in self.points.items() if name in table.rows})


class Extender:
    """One webhook. Every method raises Failed when it gives no answer or a wrong one."""

    def __init__(self, config: ExtenderConfig) -> None:
        self.config = config
        self.name = config.url_prefix
        self.timeout = parse_duration(config.http_timeout)
        self._managed = {r.name for r in config.managed_resources}
        self._transport = HTTPSTransport(_transport_config(config))

    def interested(self, pod: PodInfo) -> bool:
        """Whether the pod asks for a resource that this extender manages; with none named, it manages all pods."""
        if not self._managed:
            return True
        sides = ((c.resources.requests, c.resources.limits) for c in all_containers(pod.pod) if c.resources)
        return any(name in self._managed for pair in sides for side in pair for name in side or ())

    async def _post(self, verb: str, body: Mapping[str, Any]) -> Any:
        try:
            answer = await self._transport.request(
                "POST", "/" + verb.lstrip("/"), body=_encode(body), timeout=self.timeout
            )
        except (TransportError, OSError, TimeoutError, ValueError) as error:
            raise Failed(f"extender {self.name}: {error}") from error
        if answer.status != 200:
            raise Failed(f"failed {verb} with extender at URL {self.name}/{verb}, code {answer.status}")
        try:
            return msgspec.json.decode(answer.body)
        except msgspec.DecodeError as error:
            raise Failed(f"extender {self.name}: {verb}: {error}") from error

    def _about(self, pod: PodInfo, names: Sequence[str], table: NodeTable) -> dict[str, Any]:
        if self.config.node_cache_capable:
            return {"pod": pod.pod, "nodenames": list(names)}
        nodes = [table.nodes[table.rows[n]] for n in names if n in table.rows]
        return {"pod": pod.pod, "nodes": {"metadata": {}, "items": nodes}}

    async def filter(
        self, pod: PodInfo, names: Sequence[str], table: NodeTable
    ) -> tuple[list[str], dict[str, tuple[str, bool]]]:
        """The nodes that are left, and the reasons of the others with whether preemption may help."""
        tree = await self._post(self.config.filter_verb, self._about(pod, names, table))
        if not isinstance(tree, dict):
            raise Failed(f"extender {self.name}: {self.config.filter_verb}: no object")
        if tree.get("error"):
            raise Failed(f"extender {self.name}: {tree['error']}")
        if self.config.node_cache_capable and tree.get("nodenames") is not None:
            said: Iterable[Any] = tree["nodenames"]
        else:
            items = (tree.get("nodes") or {}).get("items") or ()
            said = [(i.get("metadata") or {}).get("name") for i in items]
        feasible = [n for n in said if isinstance(n, str)]
        strange = [n for n in feasible if n not in set(names)]
        if strange:
            raise Failed(
                f'extender {self.name} claims a filtered node "{strange[0]}" which is not found in the input node list'
            )
        failed = {n: (str(w), True) for n, w in (tree.get("failedNodes") or {}).items()}
        failed |= {n: (str(w), False) for n, w in (tree.get("failedAndUnresolvableNodes") or {}).items()}
        for name in set(names) - set(feasible) - set(failed):
            failed[name] = (f"node(s) didn't pass extender {self.name}", True)
        return feasible, failed

    async def prioritize(self, pod: PodInfo, names: Sequence[str], table: NodeTable) -> dict[str, float]:
        """Points for nodes, on the scale of a plugin's weighted score."""
        listed = await self._post(self.config.prioritize_verb, self._about(pod, names, table))
        if not isinstance(listed, list):
            raise Failed(f"extender {self.name}: {self.config.prioritize_verb}: no list")
        factor = self.config.weight * 100 / FULL_SCORE
        return {str(e.get("host")): float(e.get("score") or 0) * factor for e in listed if isinstance(e, dict)}

    async def preempt(self, pod: PodInfo, victims: Victims, table: NodeTable) -> dict[str, tuple[list[PodInfo], int]]:
        """Those of the nodes on which the extender would have preemption, with its victims, of those that it was told."""
        cached = self.config.node_cache_capable
        candidates = {
            node: {"pods": [{"uid": p.uid} if cached else p.pod for p in pods], "numPDBViolations": broken}
            for node, (pods, broken) in victims.items()
        }
        key = "nodeNameToMetaVictims" if cached else "nodeNameToVictims"
        tree = await self._post(self.config.preempt_verb, {"pod": pod.pod, key: candidates})
        out: dict[str, tuple[list[PodInfo], int]] = {}
        for name, entry in ((tree or {}).get("nodeNameToMetaVictims") or {}).items():
            here = table.by_node.get(name, {})
            uids = [p.get("uid") for p in (entry or {}).get("pods") or ()]
            if any(uid not in here for uid in uids):
                raise Failed(f"extender {self.name} claims to preempt a pod that is not on node {name}")
            out[name] = [here[uid] for uid in uids], int((entry or {}).get("numPDBViolations") or 0)
        return out

    async def bind(self, pod: PodInfo, node: str) -> None:
        meta = pod.pod.metadata
        args = {"podName": meta.name, "podNamespace": meta.namespace, "podUID": meta.uid, "node": node}
        tree = await self._post(self.config.bind_verb, args)
        if isinstance(tree, dict) and tree.get("error"):
            raise Failed(f"extender {self.name}: {tree['error']}")

    async def close(self) -> None:
        await self._transport.close()


class Extenders:
    """All of them, in the order of the configuration. False if there are none."""

    def __init__(self, configs: Sequence[ExtenderConfig]) -> None:
        self._all = [Extender(c) for c in configs]

    def __bool__(self) -> bool:
        return bool(self._all)

    def interested(self, pod: PodInfo) -> list[Extender]:
        return [e for e in self._all if e.interested(pod)]

    def binder(self, pod: PodInfo) -> Extender | None:
        return next((e for e in self._all if e.config.bind_verb and e.interested(pod)), None)

    async def ask(self, pod: PodInfo, names: Sequence[str], table: NodeTable) -> Answers:
        """Filters one after another, then ranks what is left with all at once. Raises Failed, but not for an extender
        that is ignorable."""
        answers = Answers(frozenset(names))
        feasible = list(names)
        extenders = self.interested(pod)
        for extender in extenders:
            if not extender.config.filter_verb or not feasible:
                continue
            try:
                feasible, failed = await extender.filter(pod, feasible, table)
            except Failed:
                if extender.config.ignorable:
                    continue
                raise
            answers.failed |= {n: (extender.name, *why) for n, why in failed.items()}
        rankers = [e for e in extenders if e.config.prioritize_verb]
        if len(feasible) > 1 and rankers:
            # As upstream does: a ranking that fails costs the order of nodes, not the decision.
            results = await asyncio.gather(*(e.prioritize(pod, feasible, table) for e in rankers), return_exceptions=True)
            for points in results:
                for name, score in points.items() if isinstance(points, dict) else ():
                    answers.points[name] = answers.points.get(name, 0.0) + score
        return answers

    async def preempt(self, pod: PodInfo, victims: Victims, table: NodeTable) -> Victims:
        """The candidates that all extenders with a preempt verb agree to. Raises Failed."""
        for extender in self.interested(pod):
            if extender.config.preempt_verb and victims:
                try:
                    victims = await extender.preempt(pod, victims, table)
                except Failed:
                    if not extender.config.ignorable:
                        raise
        return victims

    async def close(self) -> None:
        for extender in self._all:
            await extender.close()


def _transport_config(config: ExtenderConfig) -> Config:
    tls = config.tls_config or ExtenderTLS()
    insecure = tls.insecure or (config.enable_https and config.tls_config is None)
    return Config(
        server=config.url_prefix.rstrip("/"),
        ca=_pem(tls.ca_data, tls.ca_file),
        client_certificate=_pem(tls.cert_data, tls.cert_file),
        client_key=_pem(tls.key_data, tls.key_file),
        insecure=insecure,
        tls_server_name=tls.server_name,
    )


def _pem(data: str, file: str) -> bytes:
    return base64.b64decode(data) if data else Path(file).read_bytes() if file else b""
