"""Ingresses, Services and Secrets for the tests of the ingress controller."""

from __future__ import annotations

import base64
import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from navarch.api.types import core_v1, meta_v1, networking_v1


def path(text, service, kind="Prefix", port=80):
    return networking_v1.HTTPIngressPath(path=text, path_type=kind, backend=backend(service, port))


def backend(service, port=80):
    which = {"number": port} if isinstance(port, int) else {"name": port}
    named = networking_v1.IngressServiceBackend(name=service, port=networking_v1.ServiceBackendPort(**which))
    return networking_v1.IngressBackend(service=named)


def ingress(name, rules=None, *, tls=None, default=None, at="2026-01-01T00:00:00Z", class_name="navarch"):
    """``rules``: host -> paths; ``tls``: Secret -> hosts."""
    made = [
        networking_v1.IngressRule(host=host or None, http=networking_v1.HTTPIngressRuleValue(paths=paths))
        for host, paths in (rules or {}).items()
    ]
    secrets = [networking_v1.IngressTLS(secret_name=secret, hosts=hosts or None) for secret, hosts in (tls or {}).items()]
    return networking_v1.Ingress(
        metadata=meta_v1.ObjectMeta(name=name, namespace="default", creation_timestamp=at),
        spec=networking_v1.IngressSpec(
            ingress_class_name=class_name, rules=made or None, tls=secrets or None,
            default_backend=backend(default) if default else None,
        ),
    )  # fmt: skip


def service(name, ip="10.9.192.5", port=80, port_name="http", **spec):
    ports = [core_v1.ServicePort(port=port, name=port_name, protocol="TCP")]
    return core_v1.Service(
        metadata=meta_v1.ObjectMeta(name=name, namespace="default"),
        spec=core_v1.ServiceSpec(type="ClusterIP", cluster_ip=ip, ports=ports, **spec),
    )


def pair(*hosts):
    """A certificate for hosts, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    begin = datetime.datetime(2026, 1, 1)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(7).not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(h) for h in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM), private


def secret(name, certificate, private):
    data = {"tls.crt": base64.b64encode(certificate).decode(), "tls.key": base64.b64encode(private).decode()}
    return core_v1.Secret(metadata=meta_v1.ObjectMeta(name=name, namespace="default"), type="kubernetes.io/tls", data=data)


class World:
    """Services and Secrets to look up."""

    def __init__(self, *services, secrets=(), slices=None):
        self.services = {f"default/{s.metadata.name}": s for s in services}
        self.secrets = {f"default/{s.metadata.name}": s for s in secrets}
        self.slices = slices or {}

    def lookups(self):
        return self.services.get, lambda key: self.slices.get(key, ()), self.secrets.get
