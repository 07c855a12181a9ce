"""From Ingresses to hosts, paths and backends: pure. What cannot be served is left out and named, and the rest stands.

The oldest Ingress wins where two want the same host and path. A host that is named is looked up first, then one with a
wildcard for its first label, then rules without a host; within a host an exact path goes before a prefix, and a longer prefix
before a shorter one. ImplementationSpecific is Prefix here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

from navarch.api import wellknown
from navarch.api.types import networking_v1
from proxy.ingress.actions import is_text
from proxy.ingress.backends import SecretOf, ServiceOf, Services, SlicesOf, Unusable, certificate_pair
from proxy.ingress.model import Backend, Host, Location, Problem, Site, single

CONTROLLER = "navarch.dev/ingress"
"""spec.controller of the IngressClasses that are ours."""

MAX_PATH = 1500
"""Bytes; nginx takes no word of 4,096, and each of these may need two."""

Ingress = networking_v1.Ingress


def key(obj: Ingress) -> str:
    return f"{obj.metadata.namespace}/{obj.metadata.name}"


def is_ours(ingress: Ingress, classes: Mapping[str, networking_v1.IngressClass]) -> bool:
    """Its class, by field or by the older annotation, names our controller. One without a class is nobody's."""
    name = ingress.spec.ingress_class_name or (ingress.metadata.annotations or {}).get(wellknown.INGRESS_CLASS, "")
    ingress_class = classes.get(name)
    return ingress_class is not None and ingress_class.spec.controller == CONTROLLER


def by_age(ingresses: Iterable[Ingress]) -> list[Ingress]:
    return sorted(ingresses, key=lambda i: (i.metadata.creation_timestamp or "", key(i)))


def site(ingresses: Iterable[Ingress], service_of: ServiceOf, slices_of: SlicesOf, secret_of: SecretOf) -> Site:
    """The site for these Ingresses, all of them ours."""
    return _Builder(service_of, slices_of, secret_of).build(by_age(ingresses))


class _Builder:
    def __init__(self, service_of: ServiceOf, slices_of: SlicesOf, secret_of: SecretOf) -> None:
        self.services, self.secret_of = Services(service_of, slices_of), secret_of
        self.out = Site()
        self.locations: dict[str, dict[tuple[str, bool], tuple[Location, str]]] = {}  # host -> path -> location, owner
        self.defaults: dict[str, Backend] = {}
        self.certificates: list[tuple[str, str]] = []  # (host or wildcard or "", name of the certificate)

    def build(self, ingresses: list[Ingress]) -> Site:
        for ingress in ingresses:
            self._ingress(ingress)
        for name in self.locations:
            entries = [location for location, _ in self.locations[name].values()]
            entries.sort(key=lambda loc: (not loc.exact, -len(loc.path), loc.path))
            default = self.defaults.get(name) or self.defaults.get("")
            self.out.hosts.append(Host(name, tuple(entries), default, self._certificates_for(name)))
        if "" not in self.locations:
            self.out.hosts.append(Host("", (), self.defaults.get(""), self._certificates_for("")))
        self.out.hosts.sort(key=lambda host: (host.name == "", host.name.startswith("*"), host.name))
        used = {name for host in self.out.hosts for name in host.certificates}
        self.out.certificates = {n: pair for n, pair in self.out.certificates.items() if n in used}
        return self.out

    def _problem(self, ingress: Ingress, reason: str, text: str) -> None:
        self.out.problems.append(Problem(key(ingress), reason, text))

    def _ingress(self, ingress: Ingress) -> None:
        spec = ingress.spec
        default = self._backend(ingress, spec.default_backend, "spec.defaultBackend") if spec.default_backend else None
        if default is not None:
            self.defaults.setdefault("", default)
        for number, rule in enumerate(spec.rules or ()):
            host = (rule.host or "").lower()
            if host and not _SAFE_HOST(host):
                self._problem(ingress, "Rejected", f"spec.rules[{number}].host: {host!r} is no name of a host")
                continue
            entries = self.locations.setdefault(host, {})
            if default is not None and host:
                self.defaults.setdefault(host, default)
            for place, path in enumerate(rule.http.paths if rule.http else ()):
                where = f"spec.rules[{number}].http.paths[{place}]"
                backend = self._backend(ingress, path.backend, f"{where}.backend")
                self._path(ingress, entries, path.path or "/", path.path_type == "Exact", backend, where)
        for number, tls in enumerate(spec.tls or ()):
            if name := self._pair(ingress, tls.secret_name or "", f"spec.tls[{number}]"):
                own = [rule.host or "" for rule in spec.rules or ()] or [""]
                self.certificates += [(host.lower(), name) for host in tls.hosts or own]

    def _path(
        self, ingress: Ingress, entries: dict[tuple[str, bool], tuple[Location, str]], text: str, exact: bool,
        backend: Backend, where: str,
    ) -> None:  # fmt: skip
        path = unquote(text)  # nginx compares what it has decoded
        if not path.startswith("/") or not is_text(path):
            self._problem(ingress, "Rejected", f"{where}.path: {text!r} has characters that no path has")
            return
        if len(path.encode()) > MAX_PATH:
            self._problem(ingress, "Rejected", f"{where}.path: has more than {MAX_PATH} bytes")
            return
        if not exact:
            path = path.rstrip("/") or "/"
        older = entries.get((path, exact))
        if older is None:
            entries[path, exact] = Location(path, exact, single(backend)), key(ingress)
        elif older[1] != key(ingress):
            self._problem(ingress, "Conflict", f"{where}: {text} of this host is already served for {older[1]}, which is older")

    def _backend(self, ingress: Ingress, backend: networking_v1.IngressBackend, where: str) -> Backend:
        reference = backend.service
        if reference is None:
            self._problem(ingress, "Rejected", f"{where}: backends that are no Services are not supported")
            return Backend()
        number, word = (reference.port.number, reference.port.name) if reference.port else (None, None)
        try:
            return self.services.backend(f"{ingress.metadata.namespace}/{reference.name}", number, word)
        except Unusable as error:
            self._problem(ingress, error.reason, f"{where}: {error}")
            return Backend()

    def _pair(self, ingress: Ingress, secret_name: str, where: str) -> str:
        """The name under which a Secret's certificate and key are kept, "" if it has none."""
        if not secret_name:
            return ""
        try:
            name, pair = certificate_pair(f"{ingress.metadata.namespace}/{secret_name}", self.secret_of)
        except Unusable as error:
            self._problem(ingress, error.reason, f"{where}: {error}")
            return ""
        self.out.certificates[name] = pair
        return name

    def _certificates_for(self, host: str) -> tuple[str, ...]:
        """The certificate of a host: one for its name, else one for its wildcard, else one for all."""
        _, dot, parent = host.partition(".")
        for reference in dict.fromkeys([host, f"*.{parent}" if dot else host, ""]):
            for name, certificate in self.certificates:
                if name == reference:
                    return (certificate,)
        return ()


_SAFE_HOST = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?").fullmatch
