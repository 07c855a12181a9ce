"""The stateful set controller."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from controllers import history
from controllers.controller import Context
from controllers.ownership import owners_patch
from controllers.podowner import UNSETTLED, Pod, PodOwner
from controllers.statefulset import claims as claiming
from controllers.statefulset import plan as planning
from navarch.api.errors import AlreadyExists, NotFound
from navarch.api.types import apps_v1, core_v1
from navarch.client.events import NORMAL

StatefulSet = apps_v1.StatefulSet


class StatefulSetController(PodOwner):
    name = "statefulset-controller"
    struct = StatefulSet
    api_version = "apps/v1"
    kind = "StatefulSet"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.revisions = self.informer(history.Revision, history.INDEX)
        self.claims = self.informer(claiming.Claim)

    async def reconcile(self, key: str) -> float | None:
        stateful_set: StatefulSet | None = self.owners.get_key(key)
        if stateful_set is None:
            self.expectations.forget(key)
            return None
        if stateful_set.metadata.deletion_timestamp is not None:
            return None
        settled = self.expectations.satisfied(key)
        owner = self.reference(stateful_set)
        stateful_set, newest, old = await history.current(self.client, self.revisions, stateful_set, owner)
        update = newest.metadata.name or ""
        by_name = {r.metadata.name or "": r for r in [*old, newest]}
        current = stateful_set.status.current_revision or update
        if current not in by_name:
            current = update
        pods = await self.claim(stateful_set, keep=lambda pod: planning.ordinal(stateful_set, pod) >= 0)
        now = self.world.now()
        error: Exception | None = None
        await self._keep_claims(stateful_set, pods)
        if settled:
            todo = planning.plan(stateful_set, pods, current, update, now)
            if todo.delete:
                error = await self.delete_pods(key, stateful_set, todo.delete)
            elif todo.create:
                new: list[Pod] = []
                for number, revision in todo.create:
                    await self._claims(stateful_set, number)
                    template = msgspec.convert(by_name[revision].data["spec"]["template"], core_v1.PodTemplateSpec)  # type: ignore[index]
                    new.append(planning.new_pod(stateful_set, template, owner, number, revision))
                error = await self.create_pods(key, stateful_set, new)
        status, again = planning.report(stateful_set, pods, current, update, now)
        if status != stateful_set.status:
            await self.client[StatefulSet].update_status(msgspec.structs.replace(stateful_set, status=status))
        limit = 10 if stateful_set.spec.revision_history_limit is None else stateful_set.spec.revision_history_limit
        live = {planning.revision_of(p) for p in pods} | {current, update}
        hashes = {(by_name[n].metadata.labels or {}).get(history.HASH, "") for n in sorted(live) if n in by_name}
        await history.truncate(self.client, old, hashes, limit)
        if error is not None:
            raise error
        return again if settled else min(again or UNSETTLED, UNSETTLED)

    async def _claims(self, stateful_set: StatefulSet, number: int) -> None:
        """Makes the claims of a pod that are not there yet."""
        for claim in claiming.claims(stateful_set, number):
            try:
                await self.client[claiming.Claim].create(claim)
            except AlreadyExists:
                continue
            text = f"create Claim {claim.metadata.name} Pod {stateful_set.metadata.name}-{number} in StatefulSet "
            self.events.event(stateful_set, NORMAL, "SuccessfulCreate", f"{text}{stateful_set.metadata.name} success")

    async def _keep_claims(self, stateful_set: StatefulSet, pods: Sequence[Pod]) -> None:
        """Brings the owners of the pods' claims in line with the set's retention policy, before any pod is deleted."""
        for pod in pods:
            number = planning.ordinal(stateful_set, pod)
            condemned = not planning.has_ordinal(stateful_set, number)
            for template in stateful_set.spec.volume_claim_templates or ():
                claim = self.claims.get(stateful_set.metadata.namespace, claiming.claim_name(stateful_set, template, number))
                if claim is None or claim.metadata.deletion_timestamp is not None:
                    continue
                owners = claiming.owners(stateful_set, claim, pod, condemned=condemned)
                if owners is not None:
                    patch = owners_patch(claim, owners)
                    try:
                        await self.client[claiming.Claim].patch(claim.metadata.name or "", claim.metadata.namespace, patch)
                    except NotFound:
                        continue
