"""The default objects are made and kept right, and flow schemas are told whether their level exists."""

from __future__ import annotations

import logging
from typing import Any

from apiserver.config import Config
from apiserver.flowcontrol.defaults import AUTOUPDATE, EXEMPT, MANDATORY, flow_schemas, priority_levels
from apiserver.flowcontrol.flows import SCHEMAS, Flows
from apiserver.flowcontrol.inflight import InFlight
from apiserver.flowcontrol.metrics import lines
from apiserver.lifecycle import Lifecycle
from apiserver.registry.resource import Resource
from apiserver.registry.resources import Resources
from apiserver.request import WriteOptions, own_context
from apiserver.storage.store import StoreUnavailable
from navarch.api.errors import AlreadyExists, NotFound, StatusError
from navarch.api.times import format_time
from navarch.exposition import Source

log = logging.getLogger(__name__)

Tree = dict[str, Any]

GROUP = "flowcontrol.apiserver.k8s.io"
PERIOD = 60.0
PRODUCER = WriteOptions(field_manager="api-priority-and-fairness-config-producer-v1")
CONSUMER = WriteOptions(field_manager="api-priority-and-fairness-config-consumer-v1")
DANGLING = "Dangling"


def flow_control(config: Config, resources: Resources, lifecycle: Lifecycle, sources: list[Source]) -> Flows | InFlight:
    """Makes the flow control of requests: priority and fairness, or the plain limits if that is switched off.
    ``sources`` of metrics gets theirs."""
    if not config.enable_priority_and_fairness:
        return InFlight(config.max_requests_inflight, config.max_mutating_requests_inflight)
    world, cache = resources.backend.world, resources.backend.cache
    seats = config.max_requests_inflight + config.max_mutating_requests_inflight
    flows = Flows(world, cache, seats, config.request_timeout / 4)
    keeper = Keeper(resources)

    async def keep() -> None:
        while True:
            await world.sleep(PERIOD)
            try:
                await keeper.keep()
            except (StatusError, StoreUnavailable) as error:
                log.warning("cannot keep the default flow schemas and priority levels: %s", error)

    lifecycle.before_ready.append(keeper.keep)
    lifecycle.background += [flows.follow, flows.rebalance, keep, keeper.tell_dangling]
    sources.append(lambda: lines(flows))
    return flows


def wanted_spec(obj: Tree, default: Tree) -> Tree | None:
    """The spec that an existing default object is to have; None if it stays. Sets the annotation that decides."""
    metadata, name = obj["metadata"], obj["metadata"]["name"]
    annotations = metadata.get("annotations") or {}
    value = annotations.get(AUTOUPDATE)
    automatic = value == "true" or (value != "false" and metadata.get("generation", 1) == 1)
    if name not in MANDATORY:
        if not automatic:
            return None
        return default["spec"] if obj.get("spec") != default["spec"] else None
    spec: Tree = default["spec"]
    if name == EXEMPT and "exempt" in spec and not automatic:
        # Shares of the exempt level are the operator's choice.
        spec = spec | {"exempt": obj.get("spec", {}).get("exempt") or spec["exempt"]}
    return spec if obj.get("spec") != spec else None


class Keeper:
    """Writes the objects of flow control."""

    def __init__(self, resources: Resources) -> None:
        self.resources, self.world, self.cache = resources, resources.backend.world, resources.backend.cache

    async def keep(self) -> None:
        """Makes default objects that are missing, and brings those up to date that nobody took over."""
        for resource, objects in (
            (self.resources[GROUP, "prioritylevelconfigurations"], priority_levels()),
            (self.resources[GROUP, "flowschemas"], flow_schemas()),
        ):
            async with self.world.task_group() as group:
                for obj in objects:
                    group.start(self._keep(resource, obj), "flow-default")

    async def _keep(self, resource: Resource, default: Tree) -> None:
        name = default["metadata"]["name"]
        current = resource.cached("", name)
        context = own_context(self.world)
        if current is None:
            try:
                await resource.create(context, "", default, PRODUCER)
            except AlreadyExists:
                pass
            return
        if wanted_spec(current, default) is None:
            return

        def change(old: Tree) -> Tree:
            spec = wanted_spec(old, default)
            if spec is not None:
                old["spec"] = spec
                old["metadata"].setdefault("annotations", {}).setdefault(AUTOUPDATE, "true")
            return old

        try:
            await resource.change(context, "", name, change, PRODUCER)
        except NotFound:
            pass  # the next round makes it

    async def tell_dangling(self) -> None:
        """Writes the condition Dangling into flow schemas, until cancelled."""
        while True:
            with (
                self.cache.watch(SCHEMAS) as schemas,
                self.cache.watch("/registry/prioritylevelconfigurations/") as levels,
            ):
                async def wake(watcher: Any) -> None:
                    while await watcher.batch():
                        await self._tell()
                    schemas.close()
                    levels.close()

                async with self.world.task_group() as group:
                    group.start(wake(schemas), "flow-dangling")
                    group.start(wake(levels), "flow-dangling-levels")
            await self.world.sleep(0.1)

    async def _tell(self) -> None:
        resource = self.resources[GROUP, "flowschemas"]
        levels = self.resources[GROUP, "prioritylevelconfigurations"]
        for entry in self.cache.list(SCHEMAS).entries:
            obj = entry.tree()
            level = ((obj.get("spec") or {}).get("priorityLevelConfiguration") or {}).get("name") or ""
            exists = levels.cached("", level) is not None
            condition = self._condition(level, exists)
            conditions: list[Tree] = (obj.get("status") or {}).get("conditions") or []
            now: Tree = next((c for c in conditions if c.get("type") == DANGLING), {})
            if all(now.get(f) == condition[f] for f in ("status", "reason", "message")):
                continue

            def change(old: Tree, condition: Tree = condition) -> Tree:
                status = old.setdefault("status", {})
                others = [c for c in status.get("conditions") or () if c.get("type") != DANGLING]
                status["conditions"] = [*others, condition]
                return old

            try:
                await resource.change(own_context(self.world), "", entry.name, change, CONSUMER, subresource="status")
            except NotFound:
                pass
            except (StatusError, StoreUnavailable) as error:
                log.warning("cannot write the status of FlowSchema %s: %s", entry.name, error)

    def _condition(self, level: str, exists: bool) -> Tree:
        end = "and it exists" if exists else "but there is no such object"
        return {
            "type": DANGLING, "status": "False" if exists else "True", "reason": "Found" if exists else "NotFound",
            "lastTransitionTime": format_time(self.world.now()),
            "message": f'This FlowSchema references the PriorityLevelConfiguration object named "{level}" {end}',
        }  # fmt: skip


