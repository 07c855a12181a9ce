"""The lab's certificate authority and everything it signs: security is on from the start.

Keys are ECDSA P-256, made in well under a millisecond; files are readable for their owner only. Client certificates carry
the user name as common name and the groups as organisations, as Kubernetes reads them.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.paths import write_private

YEARS = datetime.timedelta(days=3650)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """A CA kept as ``ca.crt`` and ``ca.key`` in ``directory``; made when it is not there."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        certificate, key = directory / "ca.crt", directory / "ca.key"
        if not (certificate.exists() and key.exists()):
            self._create(name)
        self.certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self._key = loaded

    def _create(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            _builder(subject, key.public_key())
            .issuer_name(subject)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_usage(signing=True), critical=True)
        )
        write_private(self.directory / "ca.key", _pem(key))
        write_private(self.directory / "ca.crt", builder.sign(key, hashes.SHA256()).public_bytes(_PEM))

    def issue(self, file: str, user: str, groups: tuple[str, ...] = (), hosts: tuple[str, ...] = ()) -> None:
        """Writes ``file``.crt and .key: a client certificate, and a server's too if ``hosts`` are given.

        A pair that is there already and covers the hosts is kept.
        """
        certificate, key_file = self.directory / f"{file}.crt", self.directory / f"{file}.key"
        if certificate.exists() and key_file.exists() and _covers(certificate, hosts):
            return
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])
        authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(subject, key.public_key())
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(authority_id, critical=False)
            .add_extension(_usage(signing=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_name(h) for h in hosts]), critical=False)
        write_private(key_file, _pem(key))
        write_private(certificate, builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM))

    def signing_key(self, file: str) -> None:
        """Writes a bare key pair, ``file``.key and .pub, as service-account tokens are signed with."""
        if (self.directory / f"{file}.key").exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(self.directory / f"{file}.key", _pem(key))
        public = key.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        write_private(self.directory / f"{file}.pub", public)

    def kubeconfig(self, path: Path, file: str, server: str, cluster: str, user: str) -> None:
        """Writes a kubeconfig that holds the certificate issued as ``file``."""

        def text(name: str) -> str:
            return base64.b64encode((self.directory / name).read_bytes()).decode()

        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": cluster, "cluster": {"server": server, "certificate-authority-data": text("ca.crt")}},
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": text(f"{file}.crt"),
                        "client-key-data": text(f"{file}.key"),
                    },
                }
            ],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
            "current-context": cluster,
        }
        write_private(path, json.dumps(config, indent=2) + "\n")


_PEM = serialization.Encoding.PEM


def _builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + YEARS)
    )


def _usage(signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not signing,
        key_cert_sign=signing,
        crl_sign=signing,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _covers(path: Path, hosts: tuple[str, ...]) -> bool:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return not hosts
    return all(_name(h) in list(names) for h in hosts)
