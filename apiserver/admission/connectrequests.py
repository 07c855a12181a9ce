"""Admission of connections: exec, attach, port-forward and the proxies. Plugins see the options of the request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from apiserver.request import CONNECT, Admission, Attributes, Context
from apiserver.wire.asgi import truth
from navarch.api.kinds import Kind

Tree = dict[str, Any]
STREAM_FLAGS = ("stdin", "stdout", "stderr", "tty")


async def admit_connection(admission: Admission, context: Context, kind: Kind, query: bytes) -> None:
    """``kind``: of the options, under the resource that is connected to. Raises what admission raises."""
    info = context.info
    kind = replace(kind, namespaced=bool(info.namespace))
    obj = {"apiVersion": kind.api_version, "kind": kind.kind} | _options(kind, parse_qs(query.decode("latin-1"), True))
    attributes = Attributes(context, CONNECT, kind, info.namespace, info.name, info.subresource, obj)
    await admission.admit(attributes)
    await admission.validate(attributes)


def _options(kind: Kind, query: dict[str, list[str]]) -> Tree:
    if kind.kind.endswith("ProxyOptions"):
        return {"path": query["path"][0]} if query.get("path") else {}
    if kind.kind == "PodPortForwardOptions":
        ports = [int(p) for text in query.get("ports") or () for p in text.split(",") if p.isdigit()]
        return {"ports": ports} if ports else {}
    out: Tree = {f: True for f in STREAM_FLAGS if truth(query.get(f, ["false"])[0])}
    if query.get("container"):
        out["container"] = query["container"][0]
    if query.get("command"):
        out["command"] = query["command"]
    return out
