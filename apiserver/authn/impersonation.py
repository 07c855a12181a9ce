"""Impersonation: what the Impersonate-* headers ask for, whom that makes, and the rights that it takes. Pure.

Upstream's rules: each user, group, uid and extra value is a right of its own, of the verb ``impersonate``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from apiserver.authn.accounts import ACCOUNTS_GROUP
from apiserver.authn.identity import AUTHENTICATED, UNAUTHENTICATED
from apiserver.request import ANONYMOUS, RequestInfo, User
from navarch.api.errors import InternalError
from navarch.api.names import dns_label, dns_subdomain

USER, GROUP, UID, EXTRA = b"impersonate-user", b"impersonate-group", b"impersonate-uid", b"impersonate-extra-"
ACCOUNT = "system:serviceaccount:"
GROUP_NAME = "authentication.k8s.io"


@dataclass
class Impersonation:
    """The headers of a request, in their order."""

    user: str = ""
    uid: str = ""
    groups: list[str] = field(default_factory=list)
    extra: dict[str, list[str]] = field(default_factory=dict)


def impersonation_of(headers: Iterable[tuple[bytes, bytes]]) -> Impersonation | None:
    """The impersonation asked for, None for none. Raises InternalError: something, but no user (as upstream has it)."""
    out = Impersonation()
    for name, value in headers:
        if not name.startswith(b"impersonate-"):
            continue
        text = value.decode("latin-1")
        if name == USER:
            out.user = out.user or text
        elif name == UID:
            out.uid = out.uid or text
        elif name == GROUP:
            out.groups.append(text)
        elif name.startswith(EXTRA):
            out.extra.setdefault(unquote(name[len(EXTRA) :].decode("latin-1")).lower(), []).append(text)
    if out.user:
        return out
    if out.groups or out.extra or out.uid:
        raise InternalError("Internal error occurred: requested impersonation without impersonating a user")
    return None


def rights(target: Impersonation, path: str) -> list[RequestInfo]:
    """The rights that the asker needs."""

    def right(resource: str, name: str, group: str = "", subresource: str = "", namespace: str = "") -> RequestInfo:
        return RequestInfo("impersonate", path, True, group, "v1", resource, subresource, namespace, name)

    out = [right("users", target.user)]
    if (account := account_of(target.user)) is not None:
        out = [right("serviceaccounts", account[1], namespace=account[0])]
    out += [right("groups", group) for group in target.groups]
    for key, values in target.extra.items():
        out += [right("userextras", value, GROUP_NAME, key) for value in values]
    if target.uid:
        out.append(right("uids", target.uid, GROUP_NAME))
    return out


def impersonated(target: Impersonation) -> User:
    """The user that a request is then made as."""
    groups = list(target.groups)
    account = account_of(target.user)
    if account is not None and not groups:
        groups = [ACCOUNTS_GROUP, f"{ACCOUNTS_GROUP}:{account[0]}"]
    if target.user == ANONYMOUS.name:
        if UNAUTHENTICATED not in groups:
            groups.append(UNAUTHENTICATED)
    elif AUTHENTICATED not in groups and UNAUTHENTICATED not in groups:
        groups.append(AUTHENTICATED)
    return User(target.user, tuple(groups), target.uid, target.extra)


def account_of(user: str) -> tuple[str, str] | None:
    """(namespace, name) of the service account that a user name stands for."""
    parts = user.removeprefix(ACCOUNT).split(":")
    if not user.startswith(ACCOUNT) or len(parts) != 2 or dns_label(parts[0]) or dns_subdomain(parts[1]):
        return None
    return parts[0], parts[1]
