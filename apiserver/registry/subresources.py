"""Endpoints that are not plain verbs: pods/binding, serviceaccounts/token, the review kinds.

A kind's module makes an :class:`Endpoint` and puts it into the table that the catalog gives the server. The key's
``subresource`` is "" for a collection that answers POST without storing anything (SelfSubjectAccessReview). The body
already passed the schema of ``kind``; what the handler returns is sent as it is, with ``code``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from apiserver.request import Context
from navarch.api.kinds import Kind

Tree = dict[str, Any]

SubresourceHandler = Callable[[Context, str, str, Tree, Mapping[str, str]], Awaitable[Tree]]
"""``await handler(context, namespace, name, body, query)`` -> the reply's tree; raises a StatusError.

``body`` is {} for GET. What a handler works with (resources, admission, ...) it is given when it is made.
"""


class EndpointKey(NamedTuple):
    group: str
    resource: str
    subresource: str
    verb: str  # create, get, update, patch or delete


@dataclass(frozen=True)
class Endpoint:
    """A handler and what discovery tells of it. ``kind`` is that of the body and the reply."""

    handler: SubresourceHandler
    kind: Kind
    code: int = 201


Endpoints = Mapping[EndpointKey, Endpoint]
