"""The listeners of a Gateway: which of them can be served, with which certificates, and what their conditions say. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from navarch.api.selectors import SelectorError, selector_matches
from proxy.gateway.api import GROUP, Finding, Tree, is_granted, key, spec_of
from proxy.gateway.hostnames import is_hostname
from proxy.ingress.backends import SecretOf, Unusable, certificate_pair

PROTOCOLS = {"HTTP": False, "HTTPS": True}


@dataclass
class Listener:
    """``refusal`` says why it is not served at all; ``conflict`` and ``unresolved`` why in their conditions."""

    gateway: Tree
    name: str
    port: int
    protocol: str
    hostname: str
    spec: Tree
    refusal: tuple[str, str] | None = None
    conflict: tuple[str, str] | None = None
    unresolved: tuple[str, str] | None = None
    takes_routes: bool = True
    certificates: list[str] = field(default_factory=list)
    inside: int = 0  # where nginx listens for it, 0 if that is not chosen yet
    routes: list[str] = field(default_factory=list)  # keys of the routes attached

    @property
    def serves(self) -> bool:
        if self.refusal or self.conflict or not self.inside:
            return False
        return bool(self.certificates) if self.protocol == "HTTPS" else True

    def findings(self) -> list[Finding]:
        refusal, conflict, unresolved = self.refusal, self.conflict, self.unresolved
        stopped = refusal or conflict or (unresolved if self.protocol == "HTTPS" and not self.certificates else None)
        pending = None if self.inside else ("Pending", "waiting for an address and a port of the nodes")
        return [
            Finding("Accepted", not refusal and not conflict, *(refusal or conflict or ("Accepted", ""))),
            Finding("Conflicted", bool(conflict), *(conflict or ("NoConflicts", ""))),
            Finding("ResolvedRefs", not unresolved, *(unresolved or ("ResolvedRefs", ""))),
            Finding("Programmed", not stopped and not pending,
                    *(("Invalid", stopped[1]) if stopped else pending or ("Programmed", ""))),
        ]  # fmt: skip

    def kinds(self) -> list[Tree]:
        return [{"group": GROUP, "kind": "HTTPRoute"}] if self.takes_routes else []

    def allows(self, route_namespace: str, labels: Mapping[str, str]) -> bool:
        """Routes of a namespace with these labels may attach."""
        if not self.takes_routes:
            return False
        namespaces = (self.spec.get("allowedRoutes") or {}).get("namespaces") or {}
        match namespaces.get("from") or "Same":
            case "All":
                return True
            case "Selector":
                try:
                    return selector_matches(namespaces.get("selector"), labels)
                except SelectorError:
                    return False
            case "Same":
                return route_namespace == str(self.gateway["metadata"]["namespace"])
        return False


def listeners(
    gateway: Tree, inside: Mapping[int, int], secret_of: SecretOf, grants: Sequence[Tree],
    pairs: dict[str, tuple[bytes, bytes]],
) -> list[Listener]:  # fmt: skip
    """A Gateway's listeners. ``inside``: port -> where nginx listens for it. Certificates in use are added to ``pairs``."""
    out: list[Listener] = []
    for spec in spec_of(gateway).get("listeners") or ():
        port, protocol = int(spec.get("port") or 0), str(spec.get("protocol"))
        listener = Listener(gateway, str(spec["name"]), port, protocol, str(spec.get("hostname") or "").lower(), spec)
        listener.inside = inside.get(port, 0)
        _check(listener)
        listener.conflict = _conflict(listener, out)
        _check_kinds(listener)
        if protocol == "HTTPS" and not listener.refusal:
            _certificates(listener, secret_of, grants, pairs)
        out.append(listener)
    return out


def _check(listener: Listener) -> None:
    tls = listener.spec.get("tls") or {}
    if listener.protocol not in PROTOCOLS:
        listener.refusal = "UnsupportedProtocol", f"{listener.protocol} is not supported, only HTTP and HTTPS"
    elif listener.hostname and not is_hostname(listener.hostname):
        listener.refusal = "UnsupportedValue", f"hostname {listener.hostname!r} is no name of a host"
    elif listener.protocol == "HTTPS" and (tls.get("mode") or "Terminate") != "Terminate":
        listener.refusal = "UnsupportedValue", "tls.mode Passthrough is not supported for HTTPS, only Terminate"
    elif listener.protocol == "HTTPS" and (tls.get("options") or tls.get("frontendValidation")):
        listener.refusal = "UnsupportedValue", "tls.options and tls.frontendValidation are not supported"
    elif listener.protocol == "HTTP" and tls:
        listener.refusal = "UnsupportedValue", "tls is for HTTPS"


def _conflict(listener: Listener, earlier: Sequence[Listener]) -> tuple[str, str] | None:
    for other in earlier:
        if other.port != listener.port or other.conflict or other.refusal:
            continue
        if other.protocol != listener.protocol:
            return "ProtocolConflict", f"listener {other.name} has port {other.port} for {other.protocol}"
        if other.hostname == listener.hostname:
            return "HostnameConflict", f"listener {other.name} has port {other.port} and the same hostname"
    return None


def _check_kinds(listener: Listener) -> None:
    kinds = (listener.spec.get("allowedRoutes") or {}).get("kinds") or ()
    strange = [k.get("kind") for k in kinds if (k.get("group", GROUP), k.get("kind")) != (GROUP, "HTTPRoute")]
    if strange:
        listener.unresolved = "InvalidRouteKinds", f"{', '.join(map(str, strange))}: only HTTPRoute is supported"
        listener.takes_routes = len(strange) < len(kinds)


def _certificates(
    listener: Listener, secret_of: SecretOf, grants: Sequence[Tree], pairs: dict[str, tuple[bytes, bytes]]
) -> None:
    references = (listener.spec.get("tls") or {}).get("certificateRefs") or ()
    namespace = str(listener.gateway["metadata"]["namespace"])
    if not references:
        listener.unresolved = "InvalidCertificateRef", "tls.certificateRefs is empty"
    for reference in references:
        where, name = reference.get("namespace") or namespace, str(reference.get("name"))
        if (reference.get("group") or "", reference.get("kind") or "Secret") != ("", "Secret"):
            listener.unresolved = "InvalidCertificateRef", f"{reference.get('kind')} {name}: only Secrets are supported"
        elif where != namespace and not is_granted(grants, "Gateway", namespace, "Secret", where, name):
            text = f"no ReferenceGrant of {where} lets {key(listener.gateway)} name Secret {name}"
            listener.unresolved = "RefNotPermitted", text
        else:
            try:
                digest, pair = certificate_pair(f"{where}/{name}", secret_of)
            except Unusable as error:
                listener.unresolved = "InvalidCertificateRef", str(error)
                continue
            pairs[digest] = pair
            listener.certificates.append(digest)
