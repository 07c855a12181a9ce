"""The default objects are made and kept right, and flow schemas are told whether their level exists."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from apiserver.flowcontrol.defaults import AUTOUPDATE, EXEMPT, MANDATORY, flow_schemas, priority_levels
from apiserver.flowcontrol.flows import SCHEMAS, Flows
from apiserver.request import WriteOptions
from apiserver.storage.store import StoreUnavailable
from navarch.api.errors import AlreadyExists, NotFound, StatusError
from navarch.api.times import format_time

if TYPE_CHECKING:
    from apiserver.registry.resource import Resource
    from apiserver.server import APIServer

log = logging.getLogger(__name__)

Tree = dict[str, Any]

GROUP = "flowcontrol.apiserver.k8s.io"
PERIOD = 60.0
PRODUCER = WriteOptions(field_manager="api-priority-and-fairness-config-producer-v1")
CONSUMER = WriteOptions(field_manager="api-priority-and-fairness-config-consumer-v1")
DANGLING = "Dangling"


def add_flow_control(server: APIServer) -> None:
    """Has every request pass priority and fairness, or the plain limits if that is switched off."""
    config = server.config
    if not config.enable_priority_and_fairness:
        from apiserver.flowcontrol.inflight import InFlight

        server.flows = InFlight(config.max_requests_inflight, config.max_mutating_requests_inflight)
        return
    seats = config.max_requests_inflight + config.max_mutating_requests_inflight
    flows = server.flows = Flows(server.world, server.cache, seats, config.request_timeout / 4)
    keeper = Keeper(server)

    async def prepare(server: APIServer) -> None:
        await keeper.keep()

    async def keep(server: APIServer) -> None:
        while True:
            await server.world.sleep(PERIOD)
            try:
                await keeper.keep()
            except (StatusError, StoreUnavailable) as error:
                log.warning("cannot keep the default flow schemas and priority levels: %s", error)

    async def follow(server: APIServer) -> None:
        await flows.follow()

    async def rebalance(server: APIServer) -> None:
        await flows.rebalance()

    async def tell(server: APIServer) -> None:
        await keeper.tell_dangling()

    server.before_ready.append(prepare)
    server.background += [follow, rebalance, keep, tell]
    from apiserver.flowcontrol.metrics import lines

    server.metrics.sources.append(lambda: lines(flows))


def wanted_spec(obj: Tree, default: Tree) -> Tree | None:
    """What an existing default object's spec is to become; None if it stays. Sets the annotation that decides."""
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

    def __init__(self, server: APIServer) -> None:
        self.server = server

    async def keep(self) -> None:
        """Makes default objects that are missing, and brings those up to date that nobody took over."""
        for resource, objects in (
            (self.server.resource(GROUP, "prioritylevelconfigurations"), priority_levels()),
            (self.server.resource(GROUP, "flowschemas"), flow_schemas()),
        ):
            async with self.server.world.task_group() as group:
                for obj in objects:
                    group.start(self._keep(resource, obj), "flow-default")

    async def _keep(self, resource: Resource, default: Tree) -> None:
        name = default["metadata"]["name"]
        found = resource.cached("", name)
        context = self.server.context()
        if found is None:
            try:
                await resource.create(context, "", default, PRODUCER)
            except AlreadyExists:
                pass
            return
        if wanted_spec(found, default) is None:
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
        server = self.server
        while True:
            with (
                server.cache.watch(SCHEMAS) as schemas,
                server.cache.watch("/registry/prioritylevelconfigurations/") as levels,
            ):
                async def wake(watcher: Any) -> None:
                    while await watcher.batch():
                        await self._tell()
                    schemas.close()
                    levels.close()

                async with server.world.task_group() as group:
                    group.start(wake(schemas), "flow-dangling")
                    group.start(wake(levels), "flow-dangling-levels")
            await server.world.sleep(0.1)

    async def _tell(self) -> None:
        resource = self.server.resource(GROUP, "flowschemas")
        levels = self.server.resource(GROUP, "prioritylevelconfigurations")
        for entry in self.server.cache.list(SCHEMAS).entries:
            obj = entry.tree()
            level = obj["spec"]["priorityLevelConfiguration"]["name"]
            exists = levels.cached("", level) is not None
            condition = self._condition(level, exists)
            conditions: list[Tree] = (obj.get("status") or {}).get("conditions") or []
            now: Tree = next((c for c in conditions if c["type"] == DANGLING), {})
            if all(now.get(f) == condition[f] for f in ("status", "reason", "message")):
                continue

            def change(old: Tree, condition: Tree = condition) -> Tree:
                status = old.setdefault("status", {})
                others = [c for c in status.get("conditions") or () if c["type"] != DANGLING]
                status["conditions"] = [*others, condition]
                return old

            try:
                await resource.change(self.server.context(), "", entry.name, change, CONSUMER, subresource="status")
            except NotFound:
                pass
            except (StatusError, StoreUnavailable) as error:
                log.warning("cannot write the status of FlowSchema %s: %s", entry.name, error)

    def _condition(self, level: str, exists: bool) -> Tree:
        end = "and it exists" if exists else "but there is no such object"
        return {
            "type": DANGLING, "status": "False" if exists else "True", "reason": "Found" if exists else "NotFound",
            "lastTransitionTime": format_time(self.server.world.now()),
            "message": f'This FlowSchema references the PriorityLevelConfiguration object named "{level}" {end}',
        }  # fmt: skip


