"""Calls to a CRI runtime: gRPC over its unix socket, methods by their explicit paths.

A runtime that is being started again is waited for, as long as the call's own deadline allows. A connection that breaks in
the middle of a call is an error: only the caller knows whether the call may be repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from protos import cri_pb2 as cri

MAX_MESSAGE = 32 << 20  # bytes: an exec's output may be 16 MiB a stream
QUICK, SLOW = 20.0, 120.0  # seconds: for questions, and for what starts or ends processes

_IMAGE_METHODS = ("ImageStatus", "ListImages", "RemoveImage")
_ANSWERS = {
    "Version": cri.VersionResponse,
    "Status": cri.StatusResponse,
    "RunPodSandbox": cri.RunPodSandboxResponse,
    "PodSandboxStatus": cri.PodSandboxStatusResponse,
    "ListPodSandbox": cri.ListPodSandboxResponse,
    "CreateContainer": cri.CreateContainerResponse,
    "ContainerStatus": cri.ContainerStatusResponse,
    "ListContainers": cri.ListContainersResponse,
    "ListContainerStats": cri.ListContainerStatsResponse,
    "ExecSync": cri.ExecSyncResponse,
    "Exec": cri.StreamResponse,
    "Attach": cri.StreamResponse,
    "ImageStatus": cri.ImageStatusResponse,
    "ListImages": cri.ListImagesResponse,
}


class CriError(Exception):
    """The runtime refused or failed. ``code`` is gRPC's name of the status, such as NOT_FOUND."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def is_gone(self) -> bool:
        return self.code == "NOT_FOUND"


class CriClient:
    """The runtime at a unix socket. Make it in the event loop that uses it."""

    def __init__(self, socket: Path) -> None:
        options = (
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.enable_http_proxy", 0),
        )
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=options)
        self._methods: dict[str, Any] = {}

    async def close(self) -> None:
        await self._channel.close()

    async def call(self, method: str, request: Any, timeout: float | None = QUICK) -> Any:
        """The answer, an Empty for methods that answer nothing. Raises CriError."""
        call = self._methods.get(method)
        if call is None:
            service = "ImageService" if method in _IMAGE_METHODS else "RuntimeService"
            call = self._methods[method] = self._channel.unary_unary(
                f"/runtime.v1.{service}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=_ANSWERS.get(method, cri.Empty).FromString,
            )
        try:
            return await call(request, timeout=timeout, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise CriError(error.code().name, error.details() or error.code().name) from None
