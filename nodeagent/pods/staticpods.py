"""Static pods: from the text of a file to the pod that the node runs, and to the mirror that the API server shows. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from navarch.api import names
from navarch.api.pods import all_containers
from navarch.api.serialization import DecodeError, decode_yaml
from navarch.api.times import format_time
from navarch.api.types import core_v1, meta_v1
from nodeagent.pods import environment
from nodeagent.pods.sources import CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE

RESTART_POLICIES = ("Always", "OnFailure", "Never")


class BadManifest(ValueError):
    """A file that holds no static pod; the text says why."""


def read(text: bytes, file: str, node: str, now: float) -> core_v1.Pod:
    """The static pod of a file (its whole path) on a node. Raises BadManifest.

    Its uid is a hash of what stands in the file, of the path and of the node's name: a changed file is another pod.
    """
    tree = _tree(text)
    try:
        pod = msgspec.convert(tree, core_v1.Pod)
    except msgspec.ValidationError as error:
        raise BadManifest(f"invalid pod: {error}") from None
    if wrong := next(_wrong(pod, f"{pod.metadata.name}-{node.lower()}"), ""):
        raise BadManifest(f"invalid pod: {wrong}")
    content = msgspec.json.encode(tree, order="sorted")
    uid = pod.metadata.uid or hashlib.md5(b"host:%s file:%s " % (node.encode(), file.encode()) + content).hexdigest()
    meta, spec = pod.metadata, pod.spec
    annotations = {CONFIG_HASH: uid, CONFIG_SEEN: format_time(now), CONFIG_SOURCE: "file"}
    everything = core_v1.Toleration(operator="Exists", effect="NoExecute")
    return msgspec.structs.replace(
        pod,
        metadata=msgspec.structs.replace(
            meta,
            uid=uid,
            name=f"{meta.name}-{node.lower()}",
            namespace=meta.namespace or "default",
            annotations=(meta.annotations or {}) | annotations,
            creation_timestamp=format_time(now),
        ),
        spec=msgspec.structs.replace(
            spec,
            node_name=node,
            restart_policy=spec.restart_policy or "Always",
            tolerations=[*(spec.tolerations or ()), everything],
        ),
        status=core_v1.PodStatus(phase="Pending"),
    )


def _tree(text: bytes) -> dict[str, Any]:
    try:
        documents = [document for document in decode_yaml(text) if document is not None]
    except (DecodeError, UnicodeDecodeError) as error:
        raise BadManifest(f"couldn't parse as pod: {error}") from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise BadManifest("a file holds one pod")
    tree: dict[str, Any] = documents[0]
    if (tree.get("apiVersion"), tree.get("kind")) != ("v1", "Pod"):
        raise BadManifest(f"couldn't parse as pod: it is {tree.get('kind')!r} of {tree.get('apiVersion')!r}, not Pod of v1")
    return tree


def _wrong(pod: core_v1.Pod, shown_name: str) -> Iterator[str]:
    """Lists what the API server would refuse in the mirror, where the node relies on it: names become paths."""
    meta, spec = pod.metadata, pod.spec
    yield from _misnamed("metadata.name", meta.name, names.dns_subdomain)
    for problem in names.dns_subdomain(shown_name):
        yield f"metadata.name: Invalid value: {shown_name!r}, which is its name on this node: {problem}"
    yield from _misnamed("metadata.namespace", meta.namespace or "default", names.dns_label)
    yield from _misnamed("metadata.uid", meta.uid or "none", names.label_value)
    if not spec.containers:
        yield "spec.containers: Required value"
    earlier: dict[str, None] = {}
    for kind, containers in (("initContainers", spec.init_containers or ()), ("containers", spec.containers)):
        for number, container in enumerate(containers):
            at = f"spec.{kind}[{number}]"
            yield from _misnamed(f"{at}.name", container.name, names.dns_label)
            if container.name in earlier:
                yield f"{at}.name: Duplicate value: {container.name!r}"
            earlier[container.name] = None
            if not container.image:
                yield f"{at}.image: Required value"
    earlier.clear()
    for number, volume in enumerate(spec.volumes or ()):
        yield from _misnamed(f"spec.volumes[{number}].name", volume.name, names.dns_label)
        if volume.name in earlier:
            yield f"spec.volumes[{number}].name: Duplicate value: {volume.name!r}"
        earlier[volume.name] = None
    for field, value in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        if value:
            yield from _misnamed(f"spec.{field}", value, names.dns_label)
    if (spec.restart_policy or "Always") not in RESTART_POLICIES:
        yield f"spec.restartPolicy: Unsupported value: {spec.restart_policy!r}: supported values: {', '.join(RESTART_POLICIES)}"
    if pod.spec.ephemeral_containers:
        yield "spec.ephemeralContainers: Forbidden: ephemeral containers are not allowed in static pods"
    if resource := next(_references(pod), ""):
        yield f"static pods may not reference {resource}"


def _misnamed(field: str, value: str | None, check: Callable[[str], list[str]]) -> Iterator[str]:
    if not value:
        yield f"{field}: Required value"
        return
    for problem in check(value):
        yield f"{field}: Invalid value: {value!r}: {problem}"


def _references(pod: core_v1.Pod) -> Iterator[str]:
    """Kinds of API objects that the pod refers to: the node runs it without the API server."""
    spec = pod.spec
    if spec.service_account_name:
        yield "serviceaccounts"
    kinds = {r.kind for container in all_containers(pod) for r in environment.references(container)}
    if spec.image_pull_secrets or "Secret" in kinds or any(_names_secret(v) for v in spec.volumes or ()):
        yield "secrets"
    if "ConfigMap" in kinds or any(v.config_map for v in spec.volumes or ()):
        yield "configmaps"
    if spec.resource_claims:
        yield "resourceclaims"
    for volume in spec.volumes or ():
        if volume.persistent_volume_claim or volume.ephemeral:
            yield "persistentvolumeclaims"
        for source in (volume.projected.sources if volume.projected else None) or ():
            if source.downward_api is None:
                yield "objects (via projected volumes)"


def _names_secret(volume: core_v1.Volume) -> bool:
    return volume.secret is not None or bool(volume.csi and volume.csi.node_publish_secret_ref)


def mirror(pod: core_v1.Pod, node: core_v1.Node) -> core_v1.Pod:
    """The mirror of a static pod, owned by its node."""
    meta, of = pod.metadata, node.metadata
    owner = meta_v1.OwnerReference(api_version="v1", kind="Node", name=of.name or "", uid=of.uid or "", controller=True)
    annotations = (meta.annotations or {}) | {CONFIG_MIRROR: (meta.annotations or {})[CONFIG_HASH]}
    shown = meta_v1.ObjectMeta(
        name=meta.name, namespace=meta.namespace, labels=meta.labels, annotations=annotations, owner_references=[owner]
    )
    return core_v1.Pod(metadata=shown, spec=pod.spec)


def mirrors(shown: core_v1.Pod, pod: core_v1.Pod) -> bool:
    """Whether an API object is this static pod's mirror, and is to stay."""
    annotations = shown.metadata.annotations or {}
    return annotations.get(CONFIG_MIRROR) == pod.metadata.uid and shown.metadata.deletion_timestamp is None
