"""The rules of an HTTPRoute as entries: a path, and what becomes of requests for it. Pure.

What is not supported makes the whole route Unsupported, with the field; a backend that cannot be reached is told, and
its share of the requests gets status 500.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from navarch.api.durations import parse_duration
from proxy.gateway.api import Tree, is_granted, key, spec_of
from proxy.gateway.hostnames import is_hostname
from proxy.ingress.actions import HOP, is_text, pattern
from proxy.ingress.backends import Services, Unusable
from proxy.ingress.model import Backend, Choice, Condition, Header, Redirect, Rewrite

_is_name = re.compile(r"[A-Za-z0-9-]+").fullmatch
_is_path = re.compile(r"/[A-Za-z0-9/._~!$&'()*+,;=:@%-]*").fullmatch
_is_method = re.compile(r"[A-Z]+").fullmatch
_PROTOCOLS = (None, "", "http", "https", "kubernetes.io/ws")
MAX_TIMEOUT = 100_000 * 3_600_000  # milliseconds
MAX_LENGTH = 1024  # characters of a value: nginx reads words of up to 4096 bytes


class Unsupported(Exception):
    """A route has a value that is not served; the reason is the condition's."""

    def __init__(self, where: str, text: str, reason: str = "UnsupportedValue") -> None:
        super().__init__(f"{where}: {text}")
        self.reason = reason


@dataclass(frozen=True)
class Entry:
    """One match of one rule. ``rank`` sorts entries of a host by the Gateway API's precedence."""

    path: str
    exact: bool
    choice: Choice
    rank: tuple[Any, ...]

    def covers(self, path: str, exact: bool) -> bool:
        """Every request for a location is one for this entry's path."""
        if self.exact:
            return exact and path == self.path
        return self.path in ("/", path) or path.startswith(self.path + "/")


class Rules:
    """Reads the rules of one HTTPRoute; ``missing`` has (reason, text) of what its backends lack."""

    def __init__(self, route: Tree, services: Services, grants: Sequence[Tree]) -> None:
        self.route, self.services, self.grants = route, services, grants
        self.namespace = str(route["metadata"]["namespace"])
        self.missing: list[tuple[str, str]] = []

    def entries(self) -> list[Entry]:
        """Raises Unsupported. A redirect has scheme and port of the request's listener only after ``for_listener``."""
        out: list[Entry] = []
        for number, host in enumerate(spec_of(self.route).get("hostnames") or ()):
            if not is_hostname(str(host).lower()):
                raise Unsupported(f"spec.hostnames[{number}]", f"{host!r} is no name of a host")
        for number, rule in enumerate(spec_of(self.route).get("rules") or [{}]):
            where = f"spec.rules[{number}]"
            for name in ("retry", "sessionPersistence"):
                if rule.get(name) is not None:
                    raise Unsupported(f"{where}.{name}", "is not supported")
            for place, match in enumerate(rule.get("matches") or [{}]):
                out.append(self._entry(rule, match, (number, place), where, f"{where}.matches[{place}]"))
        return out

    def _entry(self, rule: Tree, match: Tree, order: tuple[int, int], where: str, at: str) -> Entry:
        path, exact = self._path(match.get("path") or {}, f"{at}.path")
        conditions, counts = self._conditions(match, at)
        choice = self._choice(rule, path, exact, where)
        meta = self.route["metadata"]
        rank = (not exact, -len(path), *counts, meta.get("creationTimestamp") or "", key(self.route), *order)
        return Entry(path, exact, replace(choice, conditions=conditions), rank)

    def _path(self, path: Tree, where: str) -> tuple[str, bool]:
        kind, value = path.get("type") or "PathPrefix", str(path.get("value") or "/")
        if kind not in ("Exact", "PathPrefix"):
            raise Unsupported(f"{where}.type", f"{kind} is not supported, only Exact and PathPrefix")
        text = unquote(value)  # nginx compares what it has decoded
        if not value.startswith("/") or not is_text(text) or len(value) > MAX_LENGTH:
            raise Unsupported(f"{where}.value", "is no path, or a long one")
        return (text, True) if kind == "Exact" else (text.rstrip("/") or "/", False)

    def _conditions(self, match: Tree, at: str) -> tuple[tuple[Condition, ...], tuple[int, int, int]]:
        """Conditions beside the path, and their rank: a method, then many headers, then many query parameters."""
        out: dict[tuple[str, str], Condition] = {}
        method = match.get("method")
        if method:
            if not _is_method(method):
                raise Unsupported(f"{at}.method", f"{method!r} is no method")
            out["method", ""] = Condition("$request_method", f"^{method}\\z")
        for kind, field in (("header", "headers"), ("query", "queryParams")):
            for number, test in enumerate(match.get(field) or ()):
                where = f"{at}.{field}[{number}]"
                name, value = str(test.get("name")), str(test.get("value"))
                if (test.get("type") or "Exact") != "Exact":
                    raise Unsupported(f"{where}.type", f"{test.get('type')} is not supported, only Exact")
                if not is_text(name + value) or len(name + value) > MAX_LENGTH or not value:
                    raise Unsupported(f"{where}.value", "is empty, long, or has control characters")
                if kind == "header" and not _is_name(name):
                    raise Unsupported(f"{where}.name", f"{name!r}: only letters, digits and - are supported")
                condition = _header(name, value) if kind == "header" else _query(name, value)
                out.setdefault((kind, name.lower() if kind == "header" else name), condition)
        kinds = [kind for kind, _ in out]
        return tuple(out.values()), (-kinds.count("method"), -kinds.count("header"), -kinds.count("query"))

    def _choice(self, rule: Tree, path: str, exact: bool, where: str) -> Choice:
        choice = Choice()
        kinds: set[str] = set()
        for number, part in enumerate(rule.get("filters") or ()):
            at, kind = f"{where}.filters[{number}]", str(part.get("type"))
            if kind in kinds:
                raise Unsupported(at, f"{kind} stands here twice", "IncompatibleFilters")
            kinds.add(kind)
            choice = _filtered(choice, kind, part, None if exact else path, at)
        if {"RequestRedirect", "URLRewrite"} <= kinds:
            raise Unsupported(f"{where}.filters", "RequestRedirect and URLRewrite exclude each other", "IncompatibleFilters")
        if choice.redirect is not None and rule.get("backendRefs"):
            raise Unsupported(f"{where}.backendRefs", "a rule that redirects has no backends", "IncompatibleFilters")
        split = [self._backend(r, f"{where}.backendRefs[{n}]") for n, r in enumerate(rule.get("backendRefs") or ())]
        timeouts = [_milliseconds(value, f"{where}.timeouts.{name}") for name, value in (rule.get("timeouts") or {}).items()]
        limits = [limit for limit in timeouts if limit]
        timeout = min(limits) if limits else 0 if timeouts else None
        return replace(choice, split=tuple(split), timeout=timeout)

    def _backend(self, reference: Tree, where: str) -> tuple[Backend, int]:
        weight = reference.get("weight")
        weight = 1 if weight is None else int(weight)
        if not 0 <= weight <= 1_000_000:
            raise Unsupported(f"{where}.weight", "is not between 0 and 1000000")
        if reference.get("filters"):
            raise Unsupported(f"{where}.filters", "filters of backends are not supported, only those of rules")
        try:
            return self._named(reference), weight
        except Unusable as error:
            self.missing.append((error.reason, f"{where}: {error}"))
            return Backend(status=500), weight

    def _named(self, reference: Tree) -> Backend:
        kind, name = str(reference.get("kind") or "Service"), str(reference.get("name"))
        namespace = str(reference.get("namespace") or self.namespace)
        if (reference.get("group") or "", kind) != ("", "Service"):
            raise Unusable("InvalidKind", f"{kind} {name}: only Services are supported")
        if namespace != self.namespace and not is_granted(
            self.grants, "HTTPRoute", self.namespace, "Service", namespace, name
        ):
            raise Unusable("RefNotPermitted", f"no ReferenceGrant of {namespace} lets {key(self.route)} name Service {name}")
        full, port = f"{namespace}/{name}", reference.get("port")
        try:
            if port is None:
                raise Unusable("UnsupportedValue", "a Service needs a port")
            _, target = self.services.port(full, int(port), None)
        except Unusable as error:
            raise Unusable("BackendNotFound", str(error)) from None
        if target.app_protocol not in _PROTOCOLS:
            raise Unusable("UnsupportedProtocol", f"Service {full} speaks {target.app_protocol}, which is not supported")
        if not self.services.endpoints(full, target):
            return Backend()
        return self.services.backend(full, int(port))


def for_listener(choice: Choice, scheme: str, port: int) -> Choice:
    """A redirect that does not say where to keeps scheme and port of the listener."""
    redirect = choice.redirect
    if redirect is None:
        return choice
    usual = {"http": 80, "https": 443}
    number = int(redirect.port or (usual[redirect.scheme] if redirect.scheme else port))
    scheme = redirect.scheme or scheme
    return replace(choice, redirect=replace(redirect, scheme=scheme, port="" if usual[scheme] == number else f":{number}"))


def _header(name: str, value: str) -> Condition:
    return Condition(f"$http_{name.lower().replace('-', '_')}", f"^{pattern(value)}\\z")


def _query(name: str, value: str) -> Condition:
    """A parameter, however its characters are written."""

    def written(text: str) -> str:
        return "".join(_written(byte) for byte in text.encode())

    return Condition("$args", f"(?:^|&){written(name)}={written(value)}(?:&|\\z)")


def _written(byte: int) -> str:
    hexadecimal = "".join(f"[{c}{c.lower()}]" if c.isalpha() else c for c in f"{byte:02X}")
    forms = [f"%{hexadecimal}"]
    if byte == 32:
        forms.append("\\+")
    elif 32 < byte < 127 and chr(byte) not in "&=+%#":
        forms.append(pattern(chr(byte)))
    elif chr(byte) == "=":
        forms.append("=")
    return f"(?:{'|'.join(forms)})"


def _filtered(choice: Choice, kind: str, part: Tree, prefix: str | None, at: str) -> Choice:
    match kind:
        case "RequestHeaderModifier":
            return replace(choice, request_headers=_changes(part.get("requestHeaderModifier") or {}, at, True))
        case "ResponseHeaderModifier":
            return replace(choice, response_headers=_changes(part.get("responseHeaderModifier") or {}, at, False))
        case "RequestRedirect":
            value = part.get("requestRedirect") or {}
            return replace(choice, redirect=_redirect(value, at), rewrite=_rewrite(value.get("path"), prefix, at))
        case "URLRewrite":
            value = part.get("urlRewrite") or {}
            return replace(choice, rewrite=_rewrite(value.get("path"), prefix, at), host=_hostname(value, at))
    raise Unsupported(f"{at}.type", f"{kind} is not supported")


def _changes(modifier: Tree, at: str, request: bool) -> tuple[Header, ...]:
    out = [Header(how, str(h.get("name")), str(h.get("value"))) for how in ("set", "add") for h in modifier.get(how) or ()]
    out += [Header("remove", str(name)) for name in modifier.get("remove") or ()]
    for change in out:
        if not _is_name(change.name) or not is_text(change.value) or len(change.value) > MAX_LENGTH:
            raise Unsupported(at, f"header {change.name!r}: a name has letters, digits and -, a value no control characters")
        if change.name.lower() in HOP or (change.name.lower() == "host" and request and change.how != "set"):
            raise Unsupported(at, f"header {change.name} belongs to the connection and cannot be changed")
    names = [change.name.lower() for change in out]
    if len(set(names)) < len(names):
        raise Unsupported(at, "a header is changed twice")
    return tuple(out)


def _hostname(value: Tree, at: str) -> str:
    host = str(value.get("hostname") or "").lower()
    if host and (not is_hostname(host) or host.startswith("*")):
        raise Unsupported(f"{at}.hostname", f"{host!r} is no name of a host")
    return host


def _redirect(value: Tree, at: str) -> Redirect:
    scheme, status, port = value.get("scheme") or "", value.get("statusCode") or 302, value.get("port")
    if scheme not in ("", "http", "https"):
        raise Unsupported(f"{at}.scheme", f"{scheme!r} is not supported, only http and https")
    if status not in (301, 302):
        raise Unsupported(f"{at}.statusCode", f"{status} is not supported, only 301 and 302")
    if port is not None and not 0 < int(port) < 65536:
        raise Unsupported(f"{at}.port", f"{port} is no port")
    return Redirect(scheme, _hostname(value, at), str(port or ""), int(status))


def _rewrite(path: Tree | None, prefix: str | None, at: str) -> Rewrite | None:
    if path is None:
        return None
    kind, full = path.get("type"), path.get("type") == "ReplaceFullPath"
    if not full and kind != "ReplacePrefixMatch":
        raise Unsupported(f"{at}.path.type", f"{kind} is not supported")
    if not full and prefix is None:
        raise Unsupported(f"{at}.path.type", "ReplacePrefixMatch is for matches of type PathPrefix", "IncompatibleFilters")
    text = str(path.get("replaceFullPath" if full else "replacePrefixMatch") or "/")
    if not _is_path(text) or len(text) > MAX_LENGTH or not is_text(unquote(text)) or "?" in unquote(text):
        raise Unsupported(f"{at}.path", f"{text[:100]!r} is no path as in a URL")
    return Rewrite(text, None if full else prefix)


def _milliseconds(text: str, where: str) -> int:
    try:
        out = round(parse_duration(str(text)) * 1000)
    except ValueError:
        out = -1
    if not 0 <= out <= MAX_TIMEOUT:
        raise Unsupported(where, f"{text!r} is no duration from 0s to 100000h")
    return out
