"""A CSI driver in Python: volumes are folders below --data, bound into pods. It shows every call that a driver gets.

    python examples/06_a_csi_driver.py --socket SOCKET --data FOLDER --node-id node-1 [--topology KEY=VALUE] [--attach]

docs/storage.md runs it in a DaemonSet, with navarch's sidecar beside it. Each call may come again at any time, after any crash,
so each looks at what is there and does what is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from navarch.linux import syscalls
from protos import csi_pb2 as csi

NAME = "folders.example.com"
CONTROLLER, NODE = csi.ControllerServiceCapability.RPC, csi.NodeServiceCapability.RPC


class Failure(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Driver:
    """``hook``, if a test wants it, is called before and after each call with its name."""

    def __init__(self, data: Path, node_id: str, topology: dict[str, str], attach: bool) -> None:
        self.data, self.node_id, self.topology, self.attach = data, node_id, topology, attach
        self.hook: Callable[[str, str], None] = lambda method, when: None

    # Identity

    def GetPluginInfo(self, request: csi.GetPluginInfoRequest) -> csi.GetPluginInfoResponse:
        return csi.GetPluginInfoResponse(name=NAME, vendor_version="1")

    def GetPluginCapabilities(self, request: csi.GetPluginCapabilitiesRequest) -> csi.GetPluginCapabilitiesResponse:
        service = csi.PluginCapability.Service
        kinds = [service.CONTROLLER_SERVICE, *([service.VOLUME_ACCESSIBILITY_CONSTRAINTS] if self.topology else [])]
        return csi.GetPluginCapabilitiesResponse(
            capabilities=[csi.PluginCapability(service=service(type=kind)) for kind in kinds]
        )

    def Probe(self, request: csi.ProbeRequest) -> csi.ProbeResponse:
        return csi.ProbeResponse(ready=csi.BoolValue(value=True))

    # Controller

    def ControllerGetCapabilities(self, request: Any) -> csi.ControllerGetCapabilitiesResponse:
        kinds = [CONTROLLER.CREATE_DELETE_VOLUME, CONTROLLER.EXPAND_VOLUME, CONTROLLER.MODIFY_VOLUME]
        kinds += [CONTROLLER.PUBLISH_UNPUBLISH_VOLUME] if self.attach else []
        capability = csi.ControllerServiceCapability
        return csi.ControllerGetCapabilitiesResponse(capabilities=[capability(rpc=CONTROLLER(type=kind)) for kind in kinds])

    def CreateVolume(self, request: csi.CreateVolumeRequest) -> csi.CreateVolumeResponse:
        handle = hashlib.sha256(request.name.encode()).hexdigest()[:16]
        size, facts = request.capacity_range.required_bytes, self.facts(handle)
        if facts and facts["size"] < size:
            raise Failure("ALREADY_EXISTS", f"{request.name} has {facts['size']} bytes")
        if request.parameters.get("limit") and size > int(request.parameters["limit"]):
            raise Failure("RESOURCE_EXHAUSTED", f"no room for {size} bytes")
        (self.data / handle / "files").mkdir(parents=True, exist_ok=True)
        (self.data / handle / "files").chmod(0o777)
        self.write(handle, facts or {"size": size, "parameters": dict(request.parameters), "nodes": []})
        topology = [csi.Topology(segments=self.topology)] if self.topology else []
        volume = csi.Volume(
            volume_id=handle, capacity_bytes=size, volume_context={"made-by": NAME}, accessible_topology=topology
        )
        return csi.CreateVolumeResponse(volume=volume)

    def DeleteVolume(self, request: csi.DeleteVolumeRequest) -> csi.DeleteVolumeResponse:
        if self.facts(request.volume_id).get("nodes"):
            raise Failure("FAILED_PRECONDITION", "it is attached")
        if (self.data / request.volume_id).exists():
            shutil.rmtree(self.data / request.volume_id)
        return csi.DeleteVolumeResponse()

    def ControllerPublishVolume(self, request: csi.ControllerPublishVolumeRequest) -> csi.ControllerPublishVolumeResponse:
        facts = self.must(request.volume_id)
        if [node for node in facts["nodes"] if node != request.node_id]:
            raise Failure("FAILED_PRECONDITION", f"it is attached to {facts['nodes'][0]}")
        self.write(request.volume_id, facts | {"nodes": [request.node_id]})
        return csi.ControllerPublishVolumeResponse(publish_context={"attached-to": request.node_id})

    def ControllerUnpublishVolume(self, request: csi.ControllerUnpublishVolumeRequest) -> csi.ControllerUnpublishVolumeResponse:
        if facts := self.facts(request.volume_id):
            self.write(request.volume_id, facts | {"nodes": [n for n in facts["nodes"] if n != request.node_id]})
        return csi.ControllerUnpublishVolumeResponse()

    def ControllerExpandVolume(self, request: csi.ControllerExpandVolumeRequest) -> csi.ControllerExpandVolumeResponse:
        facts, size = self.must(request.volume_id), request.capacity_range.required_bytes
        self.write(request.volume_id, facts | {"size": max(size, facts["size"])})
        return csi.ControllerExpandVolumeResponse(capacity_bytes=max(size, facts["size"]), node_expansion_required=True)

    def ControllerModifyVolume(self, request: csi.ControllerModifyVolumeRequest) -> csi.ControllerModifyVolumeResponse:
        facts = self.must(request.volume_id)
        self.write(request.volume_id, facts | {"modified": dict(request.mutable_parameters)})
        return csi.ControllerModifyVolumeResponse()

    # Node

    def NodeGetCapabilities(self, request: Any) -> csi.NodeGetCapabilitiesResponse:
        kinds = [NODE.STAGE_UNSTAGE_VOLUME, NODE.EXPAND_VOLUME]
        return csi.NodeGetCapabilitiesResponse(
            capabilities=[csi.NodeServiceCapability(rpc=NODE(type=kind)) for kind in kinds]
        )

    def NodeGetInfo(self, request: csi.NodeGetInfoRequest) -> csi.NodeGetInfoResponse:
        topology = csi.Topology(segments=self.topology) if self.topology else None
        return csi.NodeGetInfoResponse(node_id=self.node_id, max_volumes_per_node=8, accessible_topology=topology)

    def NodeStageVolume(self, request: csi.NodeStageVolumeRequest) -> csi.NodeStageVolumeResponse:
        if self.attach and request.publish_context.get("attached-to") != self.node_id:
            raise Failure("FAILED_PRECONDITION", "it is not attached to this node")
        self.must(request.volume_id)
        self.bind(self.data / request.volume_id / "files", Path(request.staging_target_path))
        return csi.NodeStageVolumeResponse()

    def NodeUnstageVolume(self, request: csi.NodeUnstageVolumeRequest) -> csi.NodeUnstageVolumeResponse:
        syscalls.umount(request.staging_target_path)
        return csi.NodeUnstageVolumeResponse()

    def NodePublishVolume(self, request: csi.NodePublishVolumeRequest) -> csi.NodePublishVolumeResponse:
        source = Path(request.staging_target_path)
        if not request.staging_target_path:  # a volume that lives with its pod
            source = self.data / request.volume_id / "files"
            source.mkdir(parents=True, exist_ok=True)
            self.write(request.volume_id, {"size": 0, "parameters": dict(request.volume_context), "nodes": []})
        (source / ".context").write_text(json.dumps(dict(request.volume_context)))
        self.bind(source, Path(request.target_path), request.readonly)
        return csi.NodePublishVolumeResponse()

    def NodeUnpublishVolume(self, request: csi.NodeUnpublishVolumeRequest) -> csi.NodeUnpublishVolumeResponse:
        target = Path(request.target_path)
        syscalls.umount(target)
        if target.exists():
            target.rmdir()
        if request.volume_id.startswith("csi-") and (self.data / request.volume_id).exists():
            shutil.rmtree(self.data / request.volume_id)  # it lived with its pod
        return csi.NodeUnpublishVolumeResponse()

    def NodeExpandVolume(self, request: csi.NodeExpandVolumeRequest) -> csi.NodeExpandVolumeResponse:
        facts = self.must(request.volume_id)
        self.write(request.volume_id, facts | {"expanded": request.capacity_range.required_bytes})
        return csi.NodeExpandVolumeResponse(capacity_bytes=request.capacity_range.required_bytes)

    # What it stands on

    def facts(self, handle: str) -> dict[str, Any]:
        file = self.data / handle / "facts.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def must(self, handle: str) -> dict[str, Any]:
        if not (facts := self.facts(handle)):
            raise Failure("NOT_FOUND", f"there is no volume {handle}")
        return facts

    def write(self, handle: str, facts: dict[str, Any]) -> None:
        scratch = self.data / handle / "facts.new"
        scratch.write_text(json.dumps(facts))
        scratch.replace(self.data / handle / "facts.json")

    def bind(self, source: Path, target: Path, read_only: bool = False) -> None:
        target.mkdir(exist_ok=True)
        if not target.samefile(source):
            syscalls.mount(source, target, None, syscalls.MS_BIND)
        if read_only:
            syscalls.mount("none", target, None, syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY)

    # gRPC

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        out = []
        services = {"Identity": ("Get", "Probe"), "Controller": ("Controller", "Create", "Delete"), "Node": ("Node",)}
        for service, beginnings in services.items():
            names = [name for name in dir(self) if name.startswith(beginnings) and hasattr(csi, f"{name}Request")]
            methods = {name: self.handler(name) for name in names}
            out.append(grpc.method_handlers_generic_handler(f"csi.v1.{service}", methods))
        return out

    def handler(self, name: str) -> Any:
        async def respond(request: Any, context: Any) -> Any:
            self.hook(name, "before")
            try:
                answer = await asyncio.to_thread(getattr(self, name), request)
            except Failure as failure:
                await context.abort(grpc.StatusCode[failure.code], str(failure))
            self.hook(name, "after")
            return answer

        request = getattr(csi, f"{name}Request")
        return grpc.unary_unary_rpc_method_handler(respond, request.FromString, lambda answer: answer.SerializeToString())


async def serve(driver: Driver, socket: Path) -> None:
    """Serves until cancelled."""
    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(driver.handlers()))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        await server.wait_for_termination()
    finally:
        await server.stop(None)


def main() -> None:
    parser = argparse.ArgumentParser(description="A CSI driver whose volumes are folders")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of all volumes")
    parser.add_argument("--node-id", required=True)
    parser.add_argument("--topology", action="append", default=[], metavar="KEY=VALUE", help="where the volumes are")
    parser.add_argument("--attach", action="store_true", help="volumes have to be attached to a node first")
    args = parser.parse_args()
    topology = dict(pair.split("=", 1) for pair in args.topology)
    asyncio.run(serve(Driver(args.data, args.node_id, topology, args.attach), args.socket))


if __name__ == "__main__":
    main()
