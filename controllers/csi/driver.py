"""The driver's identity and controller services, as the sidecar calls them; and what CSI objects say in their messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from navarch.api import names
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.rpc.sockets import Caller, texts
from protos import csi_pb2 as csi

TIMEOUT = 60.0  # seconds
RPC = csi.ControllerServiceCapability.RPC
MODE = csi.VolumeCapability.AccessMode
PREFIX = "csi.storage.k8s.io/"  # parameters of a class that are not the driver's
SecretRef = tuple[str, str]  # namespace, name
Claim = core_v1.PersistentVolumeClaim
Volume = core_v1.PersistentVolume


class Driver:
    """``capabilities``: of its controller service; ``has_topology``: its volumes are not everywhere."""

    def __init__(self, socket: Path) -> None:
        self._caller = Caller(socket)
        self.name = ""
        self.capabilities: frozenset[int] = frozenset()
        self.has_topology = False

    async def meet(self) -> None:
        """Waits for the driver and asks what it can do. Raises RpcError."""
        identity, request = "/csi.v1.Identity/", csi.GetPluginInfoRequest()
        await self._caller.connect(TIMEOUT)
        self.name = (await self._caller.call(identity + "GetPluginInfo", request, csi.GetPluginInfoResponse, TIMEOUT)).name
        reply = csi.GetPluginCapabilitiesResponse
        plugin = await self._caller.call(
            identity + "GetPluginCapabilities", csi.GetPluginCapabilitiesRequest(), reply, TIMEOUT
        )
        services = [c.service.type for c in plugin.capabilities if c.HasField("service")]
        kinds = csi.PluginCapability.Service
        self.has_topology = kinds.VOLUME_ACCESSIBILITY_CONSTRAINTS in services
        if kinds.CONTROLLER_SERVICE in services:
            answer = await self.controller(
                "ControllerGetCapabilities", csi.ControllerGetCapabilitiesRequest(), csi.ControllerGetCapabilitiesResponse
            )
            self.capabilities = frozenset(c.rpc.type for c in answer.capabilities if c.HasField("rpc"))

    async def controller(self, method: str, request: Any, reply: Any) -> Any:
        """A call of the controller service. Raises RpcError."""
        return await self._caller.call(f"/csi.v1.Controller/{method}", request, reply, TIMEOUT)

    async def close(self) -> None:
        await self._caller.close()


async def secret(client: Client, ref: SecretRef | core_v1.SecretReference | None) -> dict[str, str]:
    """The values of a Secret. Raises RpcError, StatusError, TransportError."""
    if ref is None:
        return {}
    namespace, name = (ref.namespace or "", ref.name or "") if isinstance(ref, core_v1.SecretReference) else ref
    data = (await client[core_v1.Secret].get(name, namespace)).data or {}
    return texts(data)


def capability(
    access_modes: Sequence[str], fs_type: str, mount_options: Sequence[str], single_node_modes: bool
) -> csi.VolumeCapability:
    """How a volume is to be used. ``single_node_modes``: the driver tells ReadWriteOnce from ReadWriteOncePod."""
    out = csi.VolumeCapability()
    out.mount.SetInParent()
    out.mount.fs_type = fs_type
    out.mount.mount_flags.extend(mount_options)
    if "ReadWriteMany" in access_modes:
        out.access_mode.mode = MODE.MULTI_NODE_MULTI_WRITER
    elif "ReadOnlyMany" in access_modes:
        out.access_mode.mode = MODE.MULTI_NODE_READER_ONLY if len(access_modes) == 1 else MODE.MULTI_NODE_SINGLE_WRITER
    elif single_node_modes:
        pod_only = "ReadWriteOncePod" in access_modes
        out.access_mode.mode = MODE.SINGLE_NODE_SINGLE_WRITER if pod_only else MODE.SINGLE_NODE_MULTI_WRITER
    else:
        out.access_mode.mode = MODE.SINGLE_NODE_WRITER
    return out


class BadParameters(Exception):
    """A class cannot be used as it is."""


def secret_ref(parameters: Mapping[str, str], use: str, claim: Claim, volume: str) -> SecretRef | None:
    """The Secret that a class names for one use, such as provisioner or node-stage. Raises BadParameters.

    Of what the claim's owner chooses, its name and annotations, only the Secret's name may be made: a namespace of that
    making would be anybody's.
    """
    name, namespace = (parameters.get(f"{PREFIX}{use}-secret-{part}", "") for part in ("name", "namespace"))
    if not name and not namespace:
        return None
    if not name or not namespace:
        raise BadParameters(f"the class must name both {PREFIX}{use}-secret-name and {PREFIX}{use}-secret-namespace")
    meta = claim.metadata
    fixed = {"pv.name": volume, "pvc.namespace": meta.namespace or ""}
    chosen = {f"pvc.annotations['{key}']": value for key, value in (meta.annotations or {}).items()}
    ref = _filled(namespace, fixed), _filled(name, {**fixed, "pvc.name": meta.name or "", **chosen})
    for what, value, problems in (
        ("namespace", ref[0], names.dns_label(ref[0])),
        ("name", ref[1], names.dns_subdomain(ref[1])),
    ):
        if problems:
            raise BadParameters(f"{value!r} is no {what} of a Secret: {problems[0]}")
    return ref


_TEMPLATE = re.compile(r"\$\{([^}]*)\}")


def _filled(text: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise BadParameters(f"{text!r} has a template that is not known here: {match[1]}")
        return values[match[1]]

    return _TEMPLATE.sub(value, text)
