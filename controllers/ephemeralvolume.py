"""Makes the claims of generic ephemeral volumes (spec.volumes[].ephemeral): one a volume, which the pod owns."""

from __future__ import annotations

from controllers.controller import Context, Controller
from controllers.ownership import reference
from navarch.api.errors import AlreadyExists
from navarch.api.pods import is_terminal
from navarch.api.types import core_v1, meta_v1
from navarch.client.events import WARNING

Pod = core_v1.Pod
Claim = core_v1.PersistentVolumeClaim


def claim_for(pod: Pod, volume: core_v1.Volume) -> Claim:
    """The claim of one ephemeral volume of a pod."""
    assert volume.ephemeral is not None and volume.ephemeral.volume_claim_template is not None
    template = volume.ephemeral.volume_claim_template
    meta = template.metadata
    return Claim(
        metadata=meta_v1.ObjectMeta(
            name=f"{pod.metadata.name}-{volume.name}",
            namespace=pod.metadata.namespace,
            labels=meta.labels if meta else None,
            annotations=meta.annotations if meta else None,
            owner_references=[reference(pod, "v1", "Pod")],
        ),
        spec=template.spec,
        status=core_v1.PersistentVolumeClaimStatus(),
    )


class EphemeralVolumeController(Controller):
    """Keys are pods."""

    name = "ephemeral-volume-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events = context.recorder("ephemeral_volume")
        self.pods = self.informer(Pod)
        self.claims = self.informer(Claim)
        self.enqueues(self.pods, lambda pod: any(v.ephemeral is not None for v in pod.spec.volumes or ()))
        self.claims.add_handler(self._claim_changed)

    def _claim_changed(self, kind: str, old: Claim | None, new: Claim) -> None:
        if kind == "DELETED":
            for ref in new.metadata.owner_references or ():
                if ref.controller and ref.kind == "Pod":
                    self.queue.add(f"{new.metadata.namespace}/{ref.name}")

    async def reconcile(self, key: str) -> float | None:
        pod = self.pods.get_key(key)
        if pod is None or pod.metadata.deletion_timestamp is not None or is_terminal(pod):
            return None
        for volume in pod.spec.volumes or ():
            if volume.ephemeral is None or volume.ephemeral.volume_claim_template is None:
                continue
            desired = claim_for(pod, volume)
            claim = self.claims.get(pod.metadata.namespace, desired.metadata.name or "")
            if claim is None:
                try:
                    await self.client[Claim].create(desired)
                    continue
                except AlreadyExists:
                    claim = await self.client[Claim].get(desired.metadata.name or "", pod.metadata.namespace)
            if not any(ref.controller and ref.uid == pod.metadata.uid for ref in claim.metadata.owner_references or ()):
                # Somebody else's data: a pod must not get it by a name.
                text = f"PVC {claim.metadata.namespace}/{claim.metadata.name} was not created for pod {key} (pod is not owner)"
                self.events.event(pod, WARNING, "FailedBinding", text)
        return None
