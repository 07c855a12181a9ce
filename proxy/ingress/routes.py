"""From Ingresses to hosts, paths and backends: pure. What cannot be served is left out and named, and the rest stands.

The oldest Ingress wins where two want the same host and path. A host that is named is looked up first, then one with a
wildcard for its first label, then rules without a host; within a host an exact path goes before a prefix, and a longer prefix
before a shorter one. ImplementationSpecific is Prefix here.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from navarch.api import wellknown
from navarch.api.types import core_v1, discovery_v1, networking_v1

CONTROLLER = "navarch.dev/ingress"
"""spec.controller of the IngressClasses that are ours."""

Ingress = networking_v1.Ingress
ServiceOf = Callable[[str], core_v1.Service | None]
SlicesOf = Callable[[str], Sequence[discovery_v1.EndpointSlice]]
SecretOf = Callable[[str], core_v1.Secret | None]


@dataclass(frozen=True)
class Backend:
    """Where requests go: ``address:port`` texts. Without one they get 503. ``secure``: over TLS."""

    targets: tuple[str, ...] = ()
    secure: bool = False


@dataclass(frozen=True)
class Location:
    path: str
    exact: bool
    backend: Backend


@dataclass(frozen=True)
class Host:
    """``name`` "" stands for all others. ``certificate`` names an entry of Site.certificates, "" for none."""

    name: str
    locations: tuple[Location, ...] = ()
    default: Backend | None = None
    certificate: str = ""


@dataclass(frozen=True)
class Problem:
    """A reason why (a part of) an Ingress is not served, for an event on it."""

    owner: str
    reason: str
    text: str


@dataclass
class Site:
    hosts: list[Host] = field(default_factory=list)
    certificates: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)  # name -> PEM of certificates and key
    problems: list[Problem] = field(default_factory=list)


def key(obj: Ingress | core_v1.Service | core_v1.Secret) -> str:
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
        self.service_of, self.slices_of, self.secret_of = service_of, slices_of, secret_of
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
            self.out.hosts.append(Host(name, tuple(entries), default, self._certificate_for(name)))
        if "" not in self.locations:
            self.out.hosts.append(Host("", (), self.defaults.get(""), self._certificate_for("")))
        self.out.hosts.sort(key=lambda host: (host.name == "", host.name.startswith("*"), host.name))
        used = {host.certificate for host in self.out.hosts}
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
        if not path.startswith("/") or any(ord(c) < 32 or ord(c) == 127 for c in path):
            self._problem(ingress, "Rejected", f"{where}.path: {text!r} has characters that no path has")
            return
        if not exact:
            path = path.rstrip("/") or "/"
        older = entries.get((path, exact))
        if older is None:
            entries[path, exact] = Location(path, exact, backend), key(ingress)
        elif older[1] != key(ingress):
            self._problem(ingress, "Conflict", f"{where}: {text} of this host is already served for {older[1]}, which is older")

    def _backend(self, ingress: Ingress, backend: networking_v1.IngressBackend, where: str) -> Backend:
        reference = backend.service
        if reference is None:
            self._problem(ingress, "Rejected", f"{where}: backends that are no Services are not supported")
            return Backend()
        name = f"{ingress.metadata.namespace}/{reference.name}"
        service = self.service_of(name)
        if service is None:
            self._problem(ingress, "BackendNotFound", f"{where}: there is no Service {name}")
            return Backend()
        ports = service.spec.ports or ()
        number, word = (reference.port.number, reference.port.name) if reference.port else (None, None)
        port = next((p for p in ports if (p.port == number if number else p.name == word)), None)
        if port is None or (port.protocol or "TCP") != "TCP":
            self._problem(ingress, "BackendNotFound", f"{where}: Service {name} has no TCP port {number or word}")
            return Backend()
        secure = (port.app_protocol or "").lower() == "https"
        if service.spec.type == "ExternalName":
            self._problem(ingress, "Rejected", f"{where}: Service {name} is an ExternalName, which is not supported")
            return Backend()
        if service.spec.cluster_ip not in (None, "", "None"):
            return Backend((f"{service.spec.cluster_ip}:{port.port}",), secure)
        return Backend(tuple(self._endpoints(name, port)), secure)

    def _endpoints(self, name: str, port: core_v1.ServicePort) -> list[str]:
        """Endpoints of a headless service; others are reached by their cluster IP, where the proxy knows who is ready."""
        out: dict[str, None] = {}
        for piece in self.slices_of(name):
            numbers = [p.port for p in piece.ports or () if (p.name or "") == (port.name or "") and p.port]
            for endpoint in piece.endpoints or () if piece.address_type == "IPv4" else ():
                if endpoint.conditions is None or endpoint.conditions.ready is not False:
                    out |= {f"{address}:{number}": None for address in endpoint.addresses for number in numbers}
        return sorted(out)

    def _pair(self, ingress: Ingress, secret_name: str, where: str) -> str:
        """The name under which a Secret's certificate and key are kept, "" if it has none."""
        if not secret_name:
            return ""
        name = f"{ingress.metadata.namespace}/{secret_name}"
        secret = self.secret_of(name)
        if secret is None:
            self._problem(ingress, "SecretNotFound", f"{where}: there is no Secret {name} of type kubernetes.io/tls")
            return ""
        data = secret.data or {}
        try:
            certificate, private = (base64.b64decode(data.get(part, ""), validate=True) for part in ("tls.crt", "tls.key"))
            check_pair(certificate, private)
        except ValueError as error:
            self._problem(ingress, "BadCertificate", f"{where}: Secret {name}: {error}")
            return ""
        digest = hashlib.sha256(certificate + b"\0" + private).hexdigest()[:24]
        self.out.certificates[digest] = certificate, private
        return digest

    def _certificate_for(self, host: str) -> str:
        """The certificate of a host: one for its name, else one for its wildcard, else one for all."""
        _, dot, parent = host.partition(".")
        for reference in dict.fromkeys([host, f"*.{parent}" if dot else host, ""]):
            for name, certificate in self.certificates:
                if name == reference:
                    return certificate
        return ""


_SAFE_HOST = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?").fullmatch


def check_pair(certificate: bytes, private: bytes) -> None:
    """Raises ValueError unless these are PEM of certificates and of the key of the first."""
    try:
        first = x509.load_pem_x509_certificates(certificate)[0]
    except ValueError:
        raise ValueError("tls.crt is no PEM certificate") from None
    try:
        public = load_pem_private_key(private, None).public_key()
    except (ValueError, TypeError):
        raise ValueError("tls.key is no PEM key without a password") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != first.public_key().public_bytes(*form):
        raise ValueError("tls.key is not the key of tls.crt")
