"""Hosts, paths and what becomes of a request: the common model of Ingresses and of Gateways, from which nginx's text is made.

A path has choices; the first whose conditions the request meets is taken. An Ingress has one without conditions.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Backend:
    """Where requests go: ``address:port`` texts. Without one they get ``status``. ``secure``: over TLS."""

    targets: tuple[str, ...] = ()
    secure: bool = False
    status: int = 503


@dataclass(frozen=True)
class Condition:
    """A test beside the path: the regular expression that the value of one of nginx's variables has to match."""

    variable: str
    pattern: str


@dataclass(frozen=True)
class Header:
    """A change of one header; ``how`` is set, add or remove."""

    how: str
    name: str
    value: str = ""


@dataclass(frozen=True)
class Rewrite:
    """A new path: in place of the prefix, or of all of it (``prefix`` is None). ``path`` is as in a URL, without a query."""

    path: str
    prefix: str | None = None


@dataclass(frozen=True)
class Redirect:
    """An answer that sends the client elsewhere. ``host`` "" is the one that was asked; ``port`` is ":8080" or ""."""

    scheme: str
    host: str
    port: str
    status: int


@dataclass(frozen=True)
class Choice:
    """The fate of a request. ``split``: backends and their weights."""

    split: tuple[tuple[Backend, int], ...] = ()
    conditions: tuple[Condition, ...] = ()
    request_headers: tuple[Header, ...] = ()
    response_headers: tuple[Header, ...] = ()
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    host: str = ""  # the Host header for the backend, "" for the client's
    timeout: int | None = None  # milliseconds, 0 for none


@dataclass(frozen=True)
class Location:
    """A path, decoded, and what becomes of requests for it; a prefix has no ``/`` at its end, but for ``/`` itself."""

    path: str
    exact: bool
    choices: tuple[Choice, ...]


def single(backend: Backend) -> tuple[Choice, ...]:
    return (Choice(((backend, 1),)),)


@dataclass(frozen=True)
class Host:
    """``name`` "" stands for all others. ``certificates`` name entries of Site.certificates.

    ``listens``: ports and whether they speak TLS, () for the two of the Place. ``deep``: a wildcard stands for several
    labels, too. ``refuses``: nobody is served under this name; a TLS handshake fails.
    """

    name: str
    locations: tuple[Location, ...] = ()
    default: Backend | None = None
    certificates: tuple[str, ...] = ()
    listens: tuple[tuple[int, bool], ...] = ()
    deep: bool = False
    refuses: bool = False


@dataclass(frozen=True)
class Problem:
    """A reason why (a part of) an object is not served, for an event on it."""

    owner: str
    reason: str
    text: str


@dataclass
class Site:
    hosts: list[Host] = field(default_factory=list)
    certificates: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)  # name -> PEM of certificates and key
    problems: list[Problem] = field(default_factory=list)
    ports: dict[int, int] = field(default_factory=dict)  # where nginx listens -> the port that clients see
