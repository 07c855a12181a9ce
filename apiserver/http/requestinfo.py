"""From method and path to Kubernetes' request attributes (:class:`apiserver.request.RequestInfo`)."""

from __future__ import annotations

from collections.abc import Mapping

from apiserver.request import RequestInfo
from apiserver.wire.asgi import flag

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NAMESPACE_SUBRESOURCES = ("status", "finalize")


def parse_request(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """Parses a request. Paths below /api/VERSION/ and /apis/GROUP/VERSION/ are resources, all others are not."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(method.lower(), path)
    verb = _VERBS.get(method, "")
    if rest[0] == "watch" and len(rest) > 1:  # the old way to write ?watch=true
        verb, rest = "watch", rest[1:]
    namespace = ""
    if rest[0] == "namespaces":
        if len(rest) > 1:
            namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
            rest = rest[2:]
    resource = rest[0]
    name = rest[1] if len(rest) > 1 else ""
    # Behind "proxy" comes a path of the backend's.
    subresource = "proxy" if rest[2:3] == ["proxy"] else "/".join(rest[2:])
    if not name and verb == "get":
        verb = "watch" if flag(query, "watch") else "list"
    elif not name and verb == "delete":
        verb = "deletecollection"
    fields = labels = ""
    if verb in ("list", "watch", "deletecollection"):
        fields, labels = query.get("fieldSelector", ""), query.get("labelSelector", "")
        name = name or _selected_name(fields)
    return RequestInfo(verb, path, True, group, version, resource, subresource, namespace, name, fields, labels)


def _selected_name(selector: str) -> str:
    """The one name that a field selector asks for: authorization by resourceNames covers such lists and watches."""
    if not selector:
        return ""
    for term in selector.split(","):
        field, _, value = term.replace("==", "=").partition("=")
        if field == "metadata.name":
            return value
    return ""
