"""The PersistentVolume binder under random claims, volumes, deletions, crashes and stale caches.

Rules: a volume is bound to one claim, a claim keeps its volume, a bound volume is large enough and of the claim's
class; in the end no claim waits for which a volume is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from lab.simulation.cluster import Record
from navarch.api.errors import AlreadyExists, StatusError
from navarch.api.types import core_v1
from tests.model import acts
from tests.model.cluster import ModelCluster, play
from tests.model.settings import sampled

VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: {size}Gi}}
  accessModes: [ReadWriteOnce]
  storageClassName: "{class_}"
  persistentVolumeReclaimPolicy: Retain
  hostPath: {{path: /data/{name}}}
"""
CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: "{class_}"
  volumeName: {volume}
  resources: {{requests: {{storage: {size}Gi}}}}
"""
CLASSES = ("", "fast")


class Create(NamedTuple):
    text: str

    async def play(self, cluster: ModelCluster) -> None:
        try:
            await cluster.apply(self.text)
        except AlreadyExists:
            pass
        except StatusError as error:  # what is bound does not change
            if error.code not in (403, 409, 422):
                raise


class Delete(NamedTuple):
    kind: type
    name: str

    async def play(self, cluster: ModelCluster) -> None:
        namespace = "default" if self.kind is core_v1.PersistentVolumeClaim else None
        try:
            await cluster.client[self.kind].delete(self.name, namespace)
        except StatusError as error:
            if error.code not in (404, 409):
                raise


class BinderJudge:
    manifest = ""

    def __init__(self) -> None:
        self.volumes: dict[str, Mapping[str, Any]] = {}
        self.claims: dict[str, Mapping[str, Any]] = {}

    def look(self, cluster: ModelCluster, record: Record, tree: Mapping[str, Any] | None) -> None:
        resource, name = record.key.split("/")[2], record.key.split("/")[-1]
        if resource not in ("persistentvolumes", "persistentvolumeclaims"):
            return
        every = self.volumes if resource == "persistentvolumes" else self.claims
        before = every.pop(name, None)
        if tree is None:
            return
        every[name] = tree
        if resource == "persistentvolumes":
            old, new = _claim_of(before), _claim_of(tree)
            if before and _uid(before) == _uid(tree) and old and new != old and old in map(_uid, self.claims.values()):
                cluster.say(record, f"is taken from claim {old}, which exists")
            return
        if tree.get("status", {}).get("phase") != "Bound":
            return
        volume = tree["spec"]["volumeName"]
        others = [
            n for n, c in self.claims.items() if n != name and c["spec"].get("volumeName") == volume and _bound(c)
        ]
        if others:
            cluster.say(record, f"volume {volume} is bound to {others}, too")
        if before and _uid(before) == _uid(tree) and before["spec"].get("volumeName", volume) != volume:
            cluster.say(record, "changes its volume")
        if volume in self.volumes and not _bound(before):
            self._fits(cluster, record, tree, self.volumes[volume])

    def _fits(self, cluster: ModelCluster, record: Record, claim: Mapping[str, Any], volume: Mapping[str, Any]) -> None:
        if _claim_of(volume) != _uid(claim):
            cluster.say(record, "is Bound, and its volume names another claim")
        if _size(volume) < int(claim["spec"]["resources"]["requests"]["storage"][:-2]) or _class(volume) != _class(
            claim
        ):
            cluster.say(record, "is bound to a volume that is too small or of another class")

    def missing(self, cluster: ModelCluster) -> str:
        free = [
            v
            for v in self.volumes.values()
            if not v["spec"].get("claimRef") and "deletionTimestamp" not in v["metadata"]
        ]
        for name, claim in self.claims.items():
            wanted = claim["spec"].get("volumeName")
            if _bound(claim) or claim.get("status", {}).get("phase") == "Lost":
                continue
            fits = [v for v in free if wanted in (None, v["metadata"]["name"]) and _class(v) == _class(claim)
                    and _size(v) >= int(claim["spec"]["resources"]["requests"]["storage"][:-2])]  # fmt: skip
            if fits:
                return f"claim {name} waits, and {fits[0]['metadata']['name']} is free"
        return ""


def _uid(tree: Mapping[str, Any]) -> str:
    return str(tree["metadata"]["uid"])


def _claim_of(volume: Mapping[str, Any] | None) -> str | None:
    return (volume or {}).get("spec", {}).get("claimRef", {}).get("uid")


def _bound(claim: Mapping[str, Any] | None) -> bool:
    return (claim or {}).get("status", {}).get("phase") == "Bound"


def _size(volume: Mapping[str, Any]) -> int:
    return int(volume["spec"]["capacity"]["storage"][:-2])


def _class(tree: Mapping[str, Any]) -> str:
    return tree["spec"].get("storageClassName") or ""


sizes, classes, numbers = st.integers(1, 4), st.sampled_from(CLASSES), st.integers(0, 4)
volumes = st.builds(lambda n, s, c: Create(VOLUME.format(name=f"pv-{n}", size=s, class_=c)), numbers, sizes, classes)
named = st.one_of(st.just("null"), st.just("null"), numbers.map(lambda n: f"pv-{n}"))
claims = st.builds(
    lambda n, s, c, v: Create(CLAIM.format(name=f"c-{n}", size=s, class_=c, volume=v)), numbers, sizes, classes, named
)
deletions = st.one_of(
    st.builds(Delete, st.just(core_v1.PersistentVolume), numbers.map(lambda n: f"pv-{n}")),
    st.builds(Delete, st.just(core_v1.PersistentVolumeClaim), numbers.map(lambda n: f"c-{n}")),
)
conflicts = st.builds(acts.Touch, st.just(core_v1.PersistentVolumeClaim), acts.small)
delays = acts.lags("persistentvolumes", "persistentvolumeclaims")
rough = st.one_of(volumes, volumes, claims, claims, deletions, acts.waits, conflicts, acts.crashes, acts.losses, delays)


@sampled(30)
@given(st.lists(rough, max_size=18))
def test_a_volume_is_bound_once(plan: list[Any]) -> None:
    play(BinderJudge(), plan)
