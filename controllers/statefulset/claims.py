"""The volume claims of a stateful set's pods, and who takes them along (spec.persistentVolumeClaimRetentionPolicy).

A claim that is to be deleted with the set is owned by the set; one that is to be deleted when the set is scaled down is
owned by its pod from then on. The garbage collector does the rest. Source: KEP-1847.
"""

from __future__ import annotations

from controllers.ownership import reference
from navarch.api.types import apps_v1, core_v1, meta_v1

StatefulSet = apps_v1.StatefulSet
Claim = core_v1.PersistentVolumeClaim
Owners = list[meta_v1.OwnerReference]


def claim_name(stateful_set: StatefulSet, claim: Claim, number: int) -> str:
    return f"{claim.metadata.name}-{stateful_set.metadata.name}-{number}"


def claims(stateful_set: StatefulSet, number: int) -> list[Claim]:
    """The claims of one pod. They outlive it, unless the set says otherwise."""
    labels = stateful_set.spec.selector.match_labels
    out = []
    for claim in stateful_set.spec.volume_claim_templates or ():
        meta = meta_v1.ObjectMeta(
            name=claim_name(stateful_set, claim, number), namespace=stateful_set.metadata.namespace,
            labels={**(claim.metadata.labels or {}), **(labels or {})}, annotations=claim.metadata.annotations,
        )  # fmt: skip
        out.append(Claim(metadata=meta, spec=claim.spec))
    return out


def owners(stateful_set: StatefulSet, claim: Claim, pod: core_v1.Pod, *, condemned: bool) -> Owners | None:
    """The owner references that the claim of ``pod`` should have, None if it has them. ``condemned``: the set has been
    scaled below this pod, which goes. References to others stay as they are."""
    policy = stateful_set.spec.persistent_volume_claim_retention_policy
    with_set = policy is not None and policy.when_deleted == "Delete"
    with_pod = condemned and policy is not None and policy.when_scaled == "Delete"
    present: Owners = claim.metadata.owner_references or []
    desired = [r for r in present if not _is_ours(r, stateful_set, pod)]
    if with_pod:
        desired.append(reference(pod, "v1", "Pod"))
    elif with_set:
        desired.append(reference(stateful_set, "apps/v1", "StatefulSet"))
    return None if [r.uid for r in desired] == [r.uid for r in present] else desired


def _is_ours(ref: meta_v1.OwnerReference, stateful_set: StatefulSet, pod: core_v1.Pod) -> bool:
    """Also earlier pods and sets of these names: a claim that waits for nobody would be collected."""
    return (ref.kind, ref.name) in (("Pod", pod.metadata.name), ("StatefulSet", stateful_set.metadata.name))
