"""One CSI driver of the node: its socket, what it can do, and the calls of its node service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from navarch.rpc.sockets import Caller
from protos import csi_pb2 as csi

TIMEOUT = 120.0  # seconds, as kubelet has it
_RPC = csi.NodeServiceCapability.RPC


class Driver:
    """``capabilities``: numbers of NodeServiceCapability.RPC.Type."""

    def __init__(self, name: str, endpoint: Path) -> None:
        self.name, self.endpoint = name, endpoint
        self.capabilities: frozenset[int] = frozenset()
        self._caller = Caller(endpoint)

    @property
    def stages(self) -> bool:
        return _RPC.STAGE_UNSTAGE_VOLUME in self.capabilities

    @property
    def expands(self) -> bool:
        return _RPC.EXPAND_VOLUME in self.capabilities

    @property
    def sets_group(self) -> bool:
        """It gives a volume to the pod's fsGroup by itself."""
        return _RPC.VOLUME_MOUNT_GROUP in self.capabilities

    @property
    def knows_single_node_modes(self) -> bool:
        return _RPC.SINGLE_NODE_MULTI_WRITER in self.capabilities

    async def info(self) -> csi.NodeGetInfoResponse:
        """The node as the driver knows it; its capabilities are read along. Raises RpcError."""
        reply = csi.NodeGetCapabilitiesResponse
        answer = await self._caller.call(
            "/csi.v1.Node/NodeGetCapabilities", csi.NodeGetCapabilitiesRequest(), reply, TIMEOUT, patient=True
        )
        self.capabilities = frozenset(c.rpc.type for c in answer.capabilities if c.HasField("rpc"))
        return await self.node("NodeGetInfo", csi.NodeGetInfoRequest(), csi.NodeGetInfoResponse)

    async def node(self, method: str, request: Any, reply: Any) -> Any:
        """A call of the node service. Raises RpcError."""
        return await self._caller.call(f"/csi.v1.Node/{method}", request, reply, TIMEOUT)

    async def close(self) -> None:
        await self._caller.close()
