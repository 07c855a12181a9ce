"""NetworkPolicies of one node: follows policies, namespaces and pods, and keeps the table ``navarch-policy`` equal to them.

Without policies there is no table, and nobody follows pods. What the kernel refuses is set aside as in proxy/proxy.py:
the others go on, an event on the policy says why, and it is tried again later and later. A pod whose rules could not be
made is cut off, never open.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, Gauge, Histogram

from navarch.api.networkpolicies import SlimPod, ipv4, member_of, policy_of
from navarch.api.types import core_v1, networking_v1
from navarch.client.events import EventRecorder
from navarch.client.informer import Informer, SharedInformers, key_of
from navarch.client.watch import DELETED
from navarch.linux.nftables import Nftables, NftablesError
from navarch.world import Backoff, World
from proxy.policyrules import LAYOUT, Compiler, Here
from proxy.programmer import Programmer, Runs
from proxy.rules import Rules

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds that an agent is waited for, and waits at most


class Policies:
    """Programs the policies of ``node`` until cancelled. ``resolver``: the address at which this node answers DNS."""

    def __init__(
        self,
        world: World,
        informers: SharedInformers,
        node: str,
        resolver: str = "",
        nft: Runs | None = None,
        events: EventRecorder | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self.world, self.informers, self.events = world, informers, events
        self.here = Here(node, "", resolver)
        self.compiler = Compiler(self.here)
        self.policies = informers.informer(networking_v1.NetworkPolicy)
        self.nodes = informers.informer(core_v1.Node, field_selector=f"metadata.name={node}")
        self.pods: Informer[SlimPod] | None = None  # followed as soon as there is a policy
        self.nft = nft
        self.programmer: Programmer | None = None  # made when there is something to program
        self.aside: dict[str, tuple[Backoff, float]] = {}  # owner -> when it is tried again (monotonic)
        self.claims: dict[str, str] = {}  # pod -> its address, as the agent says, until the API server says so too
        self.waiting: dict[str, list[tuple[str, asyncio.Event]]] = {}  # pod -> agents that wait for it
        self.pending: list[Callable[[], None]] = []  # events that the compiler has not taken in yet
        self.wake, self.synced = asyncio.Event(), asyncio.Event()
        self.registry = registry = registry or CollectorRegistry()
        self.seconds = Histogram(
            "navarch_proxy_policy_sync_seconds", "Seconds from a change to the policy rules that follow", registry=registry
        )
        Gauge(
            "navarch_proxy_policies_set_aside", "Policies, pods and sets whose rules were refused", registry=registry
        ).set_function(lambda: len(self.aside))
        self.policies.add_handler(self.on_policy)
        self.nodes.add_handler(self.on_node)

    # Events

    def on_policy(
        self, kind: str, old: networking_v1.NetworkPolicy | None, policy: networking_v1.NetworkPolicy
    ) -> None:
        key = key_of(policy.metadata.namespace, policy.metadata.name or "")
        self._take(lambda: self.compiler.put_policy(key, None if kind == DELETED else policy_of(policy)))

    def on_node(self, kind: str, old: core_v1.Node | None, node: core_v1.Node) -> None:
        ranges = node.spec.pod_cidrs or [node.spec.pod_cidr or ""]
        here = Here(self.here.node, next((text for text in ranges if _is_ipv4_network(text)), ""), self.here.resolver)
        if kind != DELETED and here != self.here:
            self.here = here
            self._take(lambda: self.compiler.put_here(here))

    def on_namespace(self, kind: str, old: core_v1.Namespace | None, namespace: core_v1.Namespace) -> None:
        labels = None if kind == DELETED else namespace.metadata.labels or {}
        self._take(lambda: self.compiler.put_namespace(namespace.metadata.name or "", labels))

    def on_pod(self, kind: str, old: SlimPod | None, pod: SlimPod) -> None:
        key = key_of(pod.metadata.namespace, pod.metadata.name or "")
        address = self.claims.get(key)
        if address is not None and (kind == DELETED or pod.status.pod_ip == address):
            del self.claims[key]
        elif address is not None:  # the agent knows more than the API server
            pod = msgspec.structs.replace(pod, status=msgspec.structs.replace(pod.status, pod_ip=address))
        self._take(lambda: self.compiler.put_pod(key, None if kind == DELETED else member_of(pod)))

    def _take(self, change: Callable[[], None]) -> None:
        self.pending.append(change)
        self.wake.set()

    # New pods, told of by the agent

    async def serve(self, path: Path) -> None:
        """Hears of new pods on a unix socket until cancelled: a line of JSON with namespace, name and address; answers
        ``ready`` when their policies are in force, or if there is none."""

        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(PATIENCE):
                    claim = json.loads(await reader.readline())
                    await self.isolate(key_of(claim["namespace"], claim["name"]), ipv4(claim["address"]))
                    writer.write(b"ready\n")
                    await writer.drain()
            except (OSError, ValueError, KeyError, TypeError, TimeoutError) as error:
                log.info("a new pod: %s", error or type(error).__name__)
            finally:
                writer.close()

        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(client, str(path))
        path.chmod(0o600)
        async with server:
            await server.serve_forever()

    async def isolate(self, key: str, address: str) -> None:
        """Takes note of a pod's address, and returns when what the policies say of the pod is in the kernel."""
        if not self.policies.list():
            return
        event = asyncio.Event()
        self.claims[key] = address
        self.waiting.setdefault(key, []).append((address, event))
        pod = self.pods.get_key(key) if self.pods is not None else None
        if pod is not None:
            self.on_pod("MODIFIED", None, pod)
        try:
            self._release()
            await event.wait()
        finally:
            self.waiting[key].remove((address, event))
            if not self.waiting[key]:
                del self.waiting[key]

    def _release(self) -> None:
        """Answers those whose pods the kernel knows now, or need not know."""
        for key, entries in self.waiting.items():
            rules = self.programmer.rules.services.get(f"pod:{key}", Rules()) if self.programmer is not None else Rules()
            for address, event in entries:
                if not self.policies.list() or ("handled", address) in rules.elements:
                    event.set()

    # The loop

    async def run(self) -> None:
        await self.policies.wait_synced()
        await self.nodes.wait_synced()
        backoff = Backoff(self.world, first=0.1, most=10.0)
        while True:
            self.wake.clear()
            try:
                await self._once()
            except NftablesError as error:
                log.error("nftables: %s; trying again with all policies", error)
                self.programmer = None
                await self.world.sleep(backoff.next())
                continue
            backoff.reset()
            self.synced.set()
            self._release()
            due = min((at for _, at in self.aside.values()), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.0, due - self.world.monotonic())):
                    await self.wake.wait()

    async def _once(self) -> None:
        began = self.world.monotonic()
        changes = await self._work_out()
        if self.compiler.policies and self.pods is None:
            await self._follow()
            changes |= await self._work_out()
        if not self.compiler.policies:
            if self.programmer is None or self.programmer.rules.services:
                self.programmer = await self.world.blocking(self._cleared)
                self.aside.clear()
            return
        if self.programmer is None:
            self.programmer = await self.world.blocking(self._new_programmer)
            changes = await self.world.blocking(self.compiler.everything)
        late = [owner for owner, (_, due) in self.aside.items() if due <= began and owner not in changes]
        if late:
            whole = await self.world.blocking(self.compiler.everything)
            changes |= {owner: whole.get(owner, Rules()) for owner in late}
        if not changes:
            return
        refused = await self.world.blocking(self.programmer.program, changes)
        for owner in {**changes, **refused}:
            self._judge(owner, refused.get(owner))
        self.seconds.observe(self.world.monotonic() - began)

    async def _work_out(self) -> dict[str, Rules]:
        """Takes in what happened, beside the event loop: thousands of pods at once are no reason for the DNS to wait."""
        pending, self.pending = self.pending, []
        return await self.world.blocking(self._apply, pending)

    def _apply(self, pending: list[Callable[[], None]]) -> dict[str, Rules]:
        for change in pending:
            try:
                change()
            except Exception:  # an object that nobody has foreseen: what was known of it stays
                log.exception("a change to policies, namespaces or pods")
        return self.compiler.changes()

    async def _follow(self) -> None:
        """Takes in namespaces and pods, and follows them from now on: complete before the first policy is in force."""
        namespaces = self.informers.informer(core_v1.Namespace)
        pods = self.informers.informer(SlimPod)
        await namespaces.wait_synced()
        await pods.wait_synced()
        namespaces.add_handler(self.on_namespace)
        pods.add_handler(self.on_pod)
        self.pods = pods

    def _new_programmer(self) -> Programmer:
        return Programmer(self.nft or Nftables(), LAYOUT)

    def _cleared(self) -> Programmer:
        """Removes what an earlier process, or an earlier policy, left in the kernel."""
        programmer = self.programmer or self._new_programmer()
        programmer.clear()
        return programmer

    def _judge(self, owner: str, error: str | None) -> None:
        if error is None:
            if self.aside.pop(owner, None) is not None:
                log.info("%s: its rules are accepted now", owner)
            return
        backoff, _ = self.aside.get(owner, (Backoff(self.world, first=1.0, most=60.0), 0.0))
        self.aside[owner] = (backoff, self.world.monotonic() + backoff.next())
        log.error("%s is set aside: %s", owner, error)
        sort, _, key = owner.partition(":")
        policy = self.policies.get_key(key) if sort == "policy" else None
        if policy is not None and self.events is not None:
            line = next((line for line in error.splitlines() if line.strip()), error)
            text = f"node {self.here.node} cannot program this policy; pods that it selects may lack what it allows: {line}"
            self.events.event(policy, "Warning", "SyncNetworkPolicyFailed", text)


def _is_ipv4_network(text: str) -> bool:
    try:
        ipaddress.IPv4Network(text)
    except ValueError:
        return False
    return True
