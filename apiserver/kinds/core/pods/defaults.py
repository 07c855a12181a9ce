"""The defaults of a pod spec, alone and inside a template (upstream's core/v1 SetDefaults_* functions)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from apiserver.kinds.cells import Tree, fill

MODE = 0o644
PROBE = (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3))
CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")


def default_pod(spec: Tree) -> None:
    """Sets the defaults that only a pod gets, not a template: requests from limits, service links, host ports."""
    default_pod_spec(spec)
    fill(spec, enableServiceLinks=True)
    for container in each_container(spec, ephemeral=False):
        resources = container["resources"]
        if resources.get("limits"):
            requests = resources.setdefault("requests", {})
            for name, limit in resources["limits"].items():
                requests.setdefault(name, limit)
    if spec.get("hostNetwork"):
        for container in each_container(spec, ephemeral=False):
            for port in container.get("ports") or ():
                if not port.get("hostPort") and port.get("containerPort"):
                    port["hostPort"] = port["containerPort"]


def default_pod_spec(spec: Tree) -> None:
    """The defaults that a pod and a pod template share."""
    fill(spec, dnsPolicy="ClusterFirst", restartPolicy="Always", terminationGracePeriodSeconds=30)
    fill(spec, schedulerName="default-scheduler", securityContext={})
    # One value under two names: serviceAccount is the deprecated one.
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for volume in spec.get("volumes") or ():
        default_volume(volume)
    for container in each_container(spec):
        default_container(container)


def each_container(spec: Tree, ephemeral: bool = True) -> Iterator[Tree]:
    for field in CONTAINER_LISTS if ephemeral else CONTAINER_LISTS[:2]:
        yield from spec.get(field) or ()


def image_tag(image: str) -> str:
    """The tag of an image reference: "latest" if it has neither tag nor digest, "" if only a digest."""
    rest, at, _ = image.partition("@")
    last = rest.rpartition("/")[2]
    _, colon, tag = last.partition(":")
    if colon:
        return tag
    return "" if at else "latest"


def default_container(container: Tree) -> None:
    if not container.get("imagePullPolicy"):
        always = image_tag(container.get("image") or "") == "latest"
        container["imagePullPolicy"] = "Always" if always else "IfNotPresent"
    fill(container, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File", resources={})
    for port in container.get("ports") or ():
        if port.get("protocol") is None:
            port["protocol"] = "TCP"
    for env in container.get("env") or ():
        source = env.get("valueFrom")
        if source and source.get("fieldRef") is not None:
            fill(source["fieldRef"], apiVersion="v1")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(probe) is not None:
            _default_probe(container[probe])
    for hook in ("postStart", "preStop") if container.get("lifecycle") else ():
        handler = container["lifecycle"].get(hook)
        if handler is not None and handler.get("httpGet") is not None:
            _default_http(handler["httpGet"])


def _default_probe(probe: Tree) -> None:
    for field, value in PROBE:
        if not probe.get(field):
            probe[field] = value
    if probe.get("httpGet") is not None:
        _default_http(probe["httpGet"])
    if probe.get("grpc") is not None:
        fill(probe["grpc"], service="")


def _default_http(action: Tree) -> None:
    if not action.get("path"):
        action["path"] = "/"
    if not action.get("scheme"):
        action["scheme"] = "HTTP"


def default_volume(volume: Tree) -> None:
    empty = True
    for field, source in volume.items():
        if source is not None and field != "name":
            empty = False
            if (default := _SOURCES.get(field)) is not None:
                default(source)
    if empty:
        volume["emptyDir"] = {}


LEGACY_SOURCES: dict[str, Tree] = {
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {"cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": False},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


def default_volume_source(source: Tree) -> None:
    """Sets the defaults that volumes of pods and PersistentVolumes share."""
    for field, defaults in LEGACY_SOURCES.items():
        if source.get(field) is not None:
            fill(source[field], **defaults)


def _default_mode(source: Tree) -> None:
    fill(source, defaultMode=MODE)


def _default_items(source: Tree) -> None:
    for item in source.get("items") or ():
        if item.get("fieldRef") is not None:
            fill(item["fieldRef"], apiVersion="v1")


def _default_downward(source: Tree) -> None:
    _default_mode(source)
    _default_items(source)


def _default_projected(projected: Tree) -> None:
    _default_mode(projected)
    for source in projected.get("sources") or ():
        if source.get("downwardAPI") is not None:
            _default_items(source["downwardAPI"])
        if source.get("serviceAccountToken") is not None:
            fill(source["serviceAccountToken"], expirationSeconds=3600)


def _default_host_path(source: Tree) -> None:
    fill(source, type="")


def _default_ephemeral(source: Tree) -> None:
    claim = (source.get("volumeClaimTemplate") or {}).get("spec")
    if claim is not None:
        fill(claim, volumeMode="Filesystem")


def _default_legacy(field: str) -> Callable[[Tree], None]:
    return lambda source: fill(source, **LEGACY_SOURCES[field])


_SOURCES: dict[str, Callable[[Tree], None]] = {
    "configMap": _default_mode, "secret": _default_mode, "downwardAPI": _default_downward,
    "projected": _default_projected, "hostPath": _default_host_path, "ephemeral": _default_ephemeral,
    **{field: _default_legacy(field) for field in LEGACY_SOURCES},
}  # fmt: skip
