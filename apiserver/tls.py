"""Certificates: the server's TLS context, and a small authority for a server that was given no certificates.

Labs bring their own certificates. A server started by hand with ``--cert-dir`` makes what it needs there once: a CA, its
own certificate, a key for service-account tokens, and ``admin.kubeconfig`` for kubectl.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from apiserver.config import Config
from navarch.client import kubeconfig
from navarch.world import World

FRONT_PROXY = "front-proxy-client"
YEARS = datetime.timedelta(days=3650)
PEM = serialization.Encoding.PEM


def server_context(config: Config) -> ssl.SSLContext:
    """TLS for the listener: clients may show a certificate of the client CA. Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.tls_cert_file, config.tls_private_key_file)
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # no client of ours resumes sessions, and each ticket has OpenSSL decode the client's certificate
    context.options |= ssl.OP_NO_TICKET
    if config.client_ca_file:
        context.load_verify_locations(config.client_ca_file)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def make_certificates(world: World, config: Config) -> Config:
    """The configuration with certificates in ``cert_dir``, made where they are absent."""
    directory = Path(config.cert_dir)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    pairs = ("ca", "server", "sa", "admin", "front-proxy-ca", "front-proxy-client")
    at = {f"{name}.{end}": directory / f"{name}.{end}" for name in pairs for end in ("crt", "key")}
    now = datetime.datetime.fromtimestamp(world.now(), datetime.UTC)
    if not at["ca.crt"].exists():
        name, authority = _authority(at, "ca", "navarch-ca", now)
        hosts = dict.fromkeys(["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1"])
        hosts |= dict.fromkeys([*config.bind_addresses, config.advertise_address or "127.0.0.1"])
        for file, subject, names in (
            ("server", _name("kube-apiserver"), list(hosts)),
            ("admin", _name("kubernetes-admin", "system:masters"), []),
        ):
            key = ec.generate_private_key(ec.SECP256R1())
            signed = _builder(subject, name, key.public_key(), now)
            if names:
                signed = signed.add_extension(x509.SubjectAlternativeName([_host(h) for h in names]), critical=False)
            _write(at[file + ".crt"], signed.sign(authority, hashes.SHA256()).public_bytes(PEM))
            _write(at[file + ".key"], _key(key))
        _write(at["sa.key"], _key(ec.generate_private_key(ec.SECP256R1())))
    if not at["front-proxy-ca.crt"].exists():
        # An authority of its own: whoever has its certificate may speak for any user.
        name, authority = _authority(at, "front-proxy-ca", "front-proxy-ca", now)
        key = ec.generate_private_key(ec.SECP256R1())
        signed = _builder(_name(FRONT_PROXY), name, key.public_key(), now)
        _write(at["front-proxy-client.crt"], signed.sign(authority, hashes.SHA256()).public_bytes(PEM))
        _write(at["front-proxy-client.key"], _key(key))
    return replace(
        config,
        tls_cert_file=str(at["server.crt"]), tls_private_key_file=str(at["server.key"]), client_ca_file=str(at["ca.crt"]),
        service_account_key_file=config.service_account_key_file or (str(at["sa.key"]),),
        kubelet_client_certificate=config.kubelet_client_certificate or str(at["admin.crt"]),
        kubelet_client_key=config.kubelet_client_key or str(at["admin.key"]),
        proxy_client_cert_file=config.proxy_client_cert_file or str(at["front-proxy-client.crt"]),
        proxy_client_key_file=config.proxy_client_key_file or str(at["front-proxy-client.key"]),
        requestheader_client_ca_file=config.requestheader_client_ca_file or str(at["front-proxy-ca.crt"]),
        requestheader_allowed_names=config.requestheader_allowed_names or (FRONT_PROXY,),
    )  # fmt: skip


def _authority(
    at: dict[str, Path], file: str, common: str, now: datetime.datetime
) -> tuple[x509.Name, ec.EllipticCurvePrivateKey]:
    """Makes a certificate authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common)
    builder = _builder(name, name, key.public_key(), now).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    _write(at[f"{file}.key"], _key(key))
    _write(at[f"{file}.crt"], builder.sign(key, hashes.SHA256()).public_bytes(PEM))
    return name, key


def write_admin_kubeconfig(config: Config, address: tuple[str, int]) -> Path:
    """``admin.kubeconfig`` in ``cert_dir``, for a server at ``address``; returns its path."""
    directory = Path(config.cert_dir)
    path = directory / "admin.kubeconfig"
    kubeconfig.write(
        path,
        kubeconfig.Config(
            server=f"https://{address[0]}:{address[1]}",
            ca=(directory / "ca.crt").read_bytes(),
            client_certificate=(directory / "admin.crt").read_bytes(),
            client_key=(directory / "admin.key").read_bytes(),
            user="kubernetes-admin",
            cluster="navarch",
            context="navarch",
        ),
    )
    return path


def _name(common: str, organization: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + YEARS)
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(path: Path, data: bytes) -> None:
    """Writes a file that only its owner can read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
