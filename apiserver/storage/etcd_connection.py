"""The connection to etcd: its members, its calls, and what their errors mean to us."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apiserver.storage.grpc_channel import DEADLINE_EXCEEDED, UNAVAILABLE, Channel, RpcError, Stream
from apiserver.storage.store import Compacted, FutureRevision, StoreFull, StoreUnavailable, TooLarge
from protos import etcd_pb2 as pb


@dataclass(frozen=True)
class TLS:
    """PEM files of mutual TLS."""

    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.certificate, self.key)
        context.set_alpn_protocols(["h2"])
        return context


class LeaseNotFound(Exception):
    """The lease that was named has ended."""


class Connection:
    """Calls to the members in ``endpoints`` (``unix:/path`` or ``host:port``): one at a time, the next when it fails.

    A call that cannot be sent waits for the connection, up to ``timeout`` seconds; one that was sent is never repeated.
    """

    def __init__(self, endpoints: list[str], tls: TLS | None = None, timeout: float = 5.0) -> None:
        if not tls and not all(endpoint.startswith("unix:") for endpoint in endpoints):
            raise ValueError("etcd is reached through a unix socket or with mutual TLS only")
        context = tls.context() if tls else None
        self._channels = [Channel(endpoint, context) for endpoint in endpoints]
        self._timeout = timeout
        self._at = 0

    async def range(self, request: Any) -> Any:
        try:
            return await self._call("/etcdserverpb.KV/Range", request, pb.RangeResponse)
        except StoreUnavailable:
            # Reading twice does no harm, and the connection may just have been replaced.
            return await self._call("/etcdserverpb.KV/Range", request, pb.RangeResponse)

    async def txn(self, request: Any) -> Any:
        return await self._call("/etcdserverpb.KV/Txn", request, pb.TxnResponse)

    async def compact(self, request: Any) -> Any:
        return await self._call("/etcdserverpb.KV/Compact", request, pb.CompactionResponse)

    async def grant(self, request: Any) -> Any:
        return await self._call("/etcdserverpb.Lease/LeaseGrant", request, pb.LeaseGrantResponse)

    async def revoke(self, request: Any) -> Any:
        return await self._call("/etcdserverpb.Lease/LeaseRevoke", request, pb.LeaseRevokeResponse)

    async def status(self) -> Any:
        """Of the member that is asked; it tells the alarms of the cluster. Fails at once where nobody listens."""
        return await self._call("/etcdserverpb.Maintenance/Status", pb.StatusRequest(), pb.StatusResponse, wait=False)

    async def watch(self) -> Stream:
        """A new watch stream. It asks the member to end it when the cluster has no leader."""
        return await self._stream("/etcdserverpb.Watch/Watch", ("hasleader", "true"))

    async def keep_alive(self) -> Stream:
        return await self._stream("/etcdserverpb.Lease/LeaseKeepAlive")

    async def _call(self, path: str, request: Any, response: Any, wait: bool = True) -> Any:
        channel = self._channels[self._at]
        wait = wait and len(self._channels) == 1
        try:
            answer = await channel.unary(path, request.SerializeToString(), self._timeout, wait)
        except RpcError as error:
            raise self.translate(error) from error
        return response.FromString(answer)

    async def _stream(self, path: str, *headers: tuple[str, str]) -> Stream:
        try:
            return await self._channels[self._at].stream(path, *headers)
        except RpcError as error:
            raise self.translate(error) from error

    def translate(self, error: RpcError) -> Exception:
        """Our exception for gRPC's; turns to the next member if this one is unreachable."""
        code, text = error.code, error.text
        if "compacted" in text:
            return Compacted(0)
        if "future revision" in text:
            return FutureRevision(text)
        if "lease not found" in text:
            return LeaseNotFound(text)
        if "too large" in text or "too many operations" in text:
            return TooLarge(text)
        if "space exceeded" in text:
            return StoreFull(text)
        if code in (UNAVAILABLE, DEADLINE_EXCEEDED):
            self._at = (self._at + 1) % len(self._channels)
        return StoreUnavailable(f"etcd: {text or f'status {code}'}")

    async def close(self) -> None:
        for channel in self._channels:
            channel.close()
