"""Services as backends, and Secrets as certificates: what Ingresses and Gateways name, looked up. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from navarch.api.types import core_v1, discovery_v1
from proxy.ingress.model import Backend

ServiceOf = Callable[[str], core_v1.Service | None]
SlicesOf = Callable[[str], Sequence[discovery_v1.EndpointSlice]]
SecretOf = Callable[[str], core_v1.Secret | None]


class Unusable(Exception):
    """A named object is not there or cannot be used; ``reason`` is one word."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Services:
    """Services by ``namespace/name``, and their endpoints."""

    def __init__(self, service_of: ServiceOf, slices_of: SlicesOf) -> None:
        self.service_of, self.slices_of = service_of, slices_of

    def port(self, name: str, number: int | None, word: str | None) -> tuple[core_v1.Service, core_v1.ServicePort]:
        """A Service's port, by number or by name. Raises Unusable."""
        service = self.service_of(name)
        if service is None:
            raise Unusable("BackendNotFound", f"there is no Service {name}")
        port = next((p for p in service.spec.ports or () if (p.port == number if number else p.name == word)), None)
        if port is None or (port.protocol or "TCP") != "TCP":
            raise Unusable("BackendNotFound", f"Service {name} has no TCP port {number or word}")
        if service.spec.type == "ExternalName":
            raise Unusable("Rejected", f"Service {name} is an ExternalName, which is not supported")
        return service, port

    def backend(self, name: str, number: int | None, word: str | None = None) -> Backend:
        """Where requests for a Service's port go. Raises Unusable."""
        service, port = self.port(name, number, word)
        secure = (port.app_protocol or "").lower() == "https"
        if service.spec.cluster_ip not in (None, "", "None"):
            return Backend((f"{service.spec.cluster_ip}:{port.port}",), secure)
        return Backend(tuple(self.endpoints(name, port)), secure)

    def endpoints(self, name: str, port: core_v1.ServicePort) -> list[str]:
        """Endpoints of a headless service; others are reached by their cluster IP, where the proxy knows who is ready."""
        out: dict[str, None] = {}
        for piece in self.slices_of(name):
            numbers = [p.port for p in piece.ports or () if (p.name or "") == (port.name or "") and p.port]
            for endpoint in piece.endpoints or () if piece.address_type == "IPv4" else ():
                if endpoint.conditions is None or endpoint.conditions.ready is not False:
                    out |= {f"{address}:{number}": None for address in endpoint.addresses for number in numbers}
        return sorted(out)


def certificate_pair(name: str, secret_of: SecretOf) -> tuple[str, tuple[bytes, bytes]]:
    """A Secret's certificates and key as PEM, and a name that stands for their content. Raises Unusable."""
    secret = secret_of(name)
    if secret is None:
        raise Unusable("SecretNotFound", f"there is no Secret {name} of type kubernetes.io/tls")
    data = secret.data or {}
    try:
        certificate, private = (base64.b64decode(data.get(part, ""), validate=True) for part in ("tls.crt", "tls.key"))
        check_pair(certificate, private)
    except ValueError as error:
        raise Unusable("BadCertificate", f"Secret {name}: {error}") from None
    return hashlib.sha256(certificate + b"\0" + private).hexdigest()[:24], (certificate, private)


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
