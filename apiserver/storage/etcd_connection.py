"""The connection to etcd: channels, calls, and what gRPC's errors mean to us."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from apiserver.storage.store import Compacted, FutureRevision, StoreUnavailable, TooLarge
from protos import etcd_pb2 as pb

OPTIONS = [
    ("grpc.max_receive_message_length", -1),  # a range can be as large as the data
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),  # etcd refuses clients that ask more often than every 5 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True)
class TLS:
    """PEM files of mutual TLS."""

    ca: Path
    certificate: Path
    key: Path

    def credentials(self) -> Any:
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes())


class LeaseNotFound(Exception):
    """The lease that was named has ended."""


class Connection:
    """Calls to the members in ``endpoints`` (``unix:/path`` or ``host:port``): one at a time, the next when it fails.

    A call that cannot be sent waits for the connection, up to ``timeout`` seconds; one that was sent is never repeated.
    """

    def __init__(self, endpoints: list[str], tls: TLS | None = None, timeout: float = 5.0) -> None:
        if not tls and not all(endpoint.startswith("unix:") for endpoint in endpoints):
            raise ValueError("etcd is reached through a unix socket or with mutual TLS only")
        self._endpoints, self._tls, self._timeout = endpoints, tls, timeout
        self._members: list[_Member | None] = [None] * len(endpoints)
        self._at = 0

    def _member(self) -> _Member:
        member = self._members[self._at]
        if member is None:
            endpoint = self._endpoints[self._at]
            member = self._members[self._at] = _Member(endpoint, None if endpoint.startswith("unix:") else self._tls)
        return member

    async def range(self, request: Any) -> Any:
        return await self._call("range", request)

    async def txn(self, request: Any) -> Any:
        return await self._call("txn", request)

    async def compact(self, request: Any) -> Any:
        return await self._call("compact", request)

    async def grant(self, request: Any) -> Any:
        return await self._call("grant", request)

    async def revoke(self, request: Any) -> Any:
        return await self._call("revoke", request)

    def watch(self) -> Any:
        """A new watch stream. It asks the member to end it when the cluster has no leader."""
        return self._member().watch(metadata=(("hasleader", "true"),))

    def keep_alive(self) -> Any:
        return self._member().keep_alive()

    async def _call(self, name: str, request: Any) -> Any:
        try:
            return await getattr(self._member(), name)(request, timeout=self._timeout, wait_for_ready=self._alone)
        except grpc.aio.AioRpcError as error:
            raise self.translate(error) from error

    @property
    def _alone(self) -> bool:
        return len(self._endpoints) == 1

    def translate(self, error: Any) -> Exception:
        """Our exception for gRPC's; turns to the next member if this one is unreachable."""
        code, text = error.code(), error.details() or ""
        if "compacted" in text:
            return Compacted(0)
        if "future revision" in text:
            return FutureRevision(text)
        if "lease not found" in text:
            return LeaseNotFound(text)
        if "too large" in text:
            return TooLarge(text)
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) and not self._alone:
            self._at = (self._at + 1) % len(self._endpoints)
        return StoreUnavailable(f"etcd: {code.name}: {text}")

    async def close(self) -> None:
        for member in self._members:
            if member is not None:
                await member.channel.close()


class _Member:
    """The methods of one etcd member."""

    def __init__(self, endpoint: str, tls: TLS | None) -> None:
        if tls is None:
            self.channel: Any = grpc.aio.insecure_channel(endpoint, options=OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(endpoint, tls.credentials(), options=OPTIONS)
        self.range = self._unary("/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse)
        self.txn = self._unary("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse)
        self.compact = self._unary("/etcdserverpb.KV/Compact", pb.CompactionRequest, pb.CompactionResponse)
        self.grant = self._unary("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse)
        self.revoke = self._unary("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse)
        self.watch = self._stream("/etcdserverpb.Watch/Watch", pb.WatchRequest, pb.WatchResponse)
        self.keep_alive = self._stream(
            "/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse
        )

    def _unary(self, path: str, request: Any, response: Any) -> Any:
        return self.channel.unary_unary(
            path, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )

    def _stream(self, path: str, request: Any, response: Any) -> Any:
        return self.channel.stream_stream(
            path, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )
