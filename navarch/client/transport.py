"""How a request reaches an API server: over HTTPS, or straight into an ASGI application in the same process.

Both ways give the same bytes, so everything above (client, informers, whole components) runs on either. The parts:
wire (the protocol that both follow), https on http1, and inprocess.
"""

from navarch.client.https import HTTPSTransport, connect, ssl_context
from navarch.client.inprocess import ASGIApp, InProcessTransport
from navarch.client.wire import (
    JSON,
    Query,
    RequestOptions,
    Response,
    Stream,
    StreamOptions,
    Transport,
    TransportError,
    UndecodableAnswer,
    WebSocket,
    error_of,
    raw_target,
)

__all__ = [
    "JSON", "ASGIApp", "HTTPSTransport", "InProcessTransport", "Query", "RequestOptions", "Response",
    "Stream", "StreamOptions", "Transport", "TransportError",
    "UndecodableAnswer", "WebSocket", "connect", "error_of", "raw_target", "ssl_context",
]  # fmt: skip
