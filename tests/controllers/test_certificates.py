"""Certificate requests, and tokens in Secrets: approved, signed, cleaned up, on virtual time."""

from __future__ import annotations

import base64
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from apiserver.request import User
from controllers.certificates.controllers import due
from controllers.certificates.signer import (
    API_CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    Authority,
    Unfit,
    check,
    parse,
    sign,
)
from controllers.tokens.bootstrap import signature
from navarch.api.conditions import get_condition
from navarch.api.errors import NotFound
from navarch.api.signing import load_key
from navarch.api.times import format_time
from navarch.api.types import certificates_v1, core_v1, meta_v1, rbac_v1
from navarch.client.client import Client
from navarch.client.transport import InProcessTransport
from tests.apiserver.auth.real import running
from tests.controllers.cluster import Cluster, run_cluster

Request, Secret, Account = certificates_v1.CertificateSigningRequest, core_v1.Secret, core_v1.ServiceAccount
RBAC = "rbac.authorization.k8s.io"
COMMON = ["digital signature", "key encipherment"]
NODE_NAMES = {"common": "system:node:n9", "organisations": ("system:nodes",)}


def pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def asked(common: str, organisations: tuple[str, ...] = (), names: tuple[x509.GeneralName, ...] = ()) -> str:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organisations]
    subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common)])
    builder = x509.CertificateSigningRequestBuilder(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(made.public_bytes(Encoding.PEM)).decode()


def authority(days: int = 3650) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + datetime.timedelta(days=days * 10))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), pem(key)


DNS = x509.DNSName("n9")


@pytest.mark.parametrize(
    ("signer", "request_", "usages", "problem"),
    [
        (API_CLIENT, asked("jane"), ["client auth"], ""),
        (API_CLIENT, asked("jane"), [*COMMON, "client auth"], ""),
        (API_CLIENT, asked("jane"), [*COMMON, "server auth"], "usages did not match"),
        (KUBELET_CLIENT, asked(**NODE_NAMES), [*COMMON, "client auth"], ""),
        (KUBELET_CLIENT, asked(**NODE_NAMES), ["digital signature", "client auth"], ""),
        (KUBELET_CLIENT, asked(**NODE_NAMES), ["client auth"], "usages did not match"),
        (KUBELET_CLIENT, asked("system:node:n9"), [*COMMON, "client auth"], "organization is not system:nodes"),
        (KUBELET_CLIENT, asked("n9", ("system:nodes",)), [*COMMON, "client auth"], "does not begin with system:node:"),
        (KUBELET_CLIENT, asked(**NODE_NAMES, names=(DNS,)), [*COMMON, "client auth"], "DNS subjectAltNames are not"),
        (KUBELET_SERVING, asked(**NODE_NAMES, names=(DNS,)), [*COMMON, "server auth"], ""),
        (KUBELET_SERVING, asked(**NODE_NAMES), [*COMMON, "server auth"], "DNS or IP subjectAltName is required"),
        (KUBELET_SERVING, asked(**NODE_NAMES, names=(DNS, x509.RFC822Name("a@b"))), [*COMMON, "server auth"], "Email"),
    ],
)
def test_what_signers_sign(signer: str, request_: str, usages: list[str], problem: str) -> None:
    if not problem:
        return check(signer, parse(request_), usages)
    with pytest.raises(Unfit, match=problem):
        check(signer, parse(request_), usages)


def test_certificates() -> None:
    ca = Authority.load(*authority(), 365 * 86400)
    now, request = 1_700_000_000.0, parse(asked("jane", ("dev",), (DNS,)))

    def made(seconds: int | None, ca: Authority = ca) -> x509.Certificate:
        return x509.load_pem_x509_certificate(sign(ca, request, [*COMMON, "client auth"], seconds, now, 7))

    one = made(600)
    one.verify_directly_issued_by(ca.certificate)
    assert one.subject == request.subject and one.serial_number == 7
    assert one.not_valid_before_utc.timestamp() == now - 300 and one.not_valid_after_utc.timestamp() == now + 600
    assert made(None).not_valid_after_utc.timestamp() == now - 300 + 365 * 86400
    assert made(10 * 365 * 86400).not_valid_after_utc == made(None).not_valid_after_utc
    ends = ca.certificate.not_valid_after_utc
    assert made(None, Authority(ca.certificate, ca.key, 1e10)).not_valid_after_utc == ends
    usage = one.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and usage.key_encipherment and not usage.key_cert_sign
    assert not one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [DNS]


def request_of(name: str, signer: str, text: str, auth: str = "client auth") -> Request:
    spec = certificates_v1.CertificateSigningRequestSpec(request=text, signer_name=signer, usages=[*COMMON, auth])
    return Request(metadata=meta_v1.ObjectMeta(name=name), spec=spec)


def signing(folder: Path) -> list[str]:
    for name, data in zip(("ca.crt", "ca.key"), authority(), strict=True):
        (folder / name).write_bytes(data)
    (folder / "sa.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    return [
        f"cluster-signing-cert-file={folder / 'ca.crt'}", f"cluster-signing-key-file={folder / 'ca.key'}",
        f"service-account-private-key-file={folder / 'sa.key'}",
        "controllers=*,bootstrap-signer-controller,token-cleaner-controller",
    ]  # fmt: skip


async def reached(cluster: Cluster, name: str, condition: str) -> Request:
    """The request once it has a certificate ("Issued") or the condition."""

    async def look() -> Request | None:
        request = await cluster.client[Request].get(name)
        done = request.status.certificate if condition == "Issued" else get_condition(request.status.conditions, condition)
        return request if done else None

    return await cluster.until(look, 120)


async def gone(cluster: Cluster, name: str) -> bool:
    try:
        await cluster.client[Request].get(name)
    except NotFound:
        return True
    return False


def test_requests_of_people(tmp_path: Path) -> None:
    """Nobody approves what a person asks for, until a person does; what is done with goes after an hour."""

    async def test(cluster: Cluster) -> None:
        requests = cluster.client[Request]
        await requests.create(request_of("person", API_CLIENT, asked("jane")))
        await requests.create(request_of("wrong", API_CLIENT, asked("jane"), "server auth"))
        await requests.create(request_of("left", API_CLIENT, asked("joe")))
        for name in ("person", "wrong"):
            found = await requests.get(name)
            condition = certificates_v1.CertificateSigningRequestCondition(type="Approved", status="True", reason="Asked")
            found.status.conditions = [condition]
            await requests.update(found, subresource="approval")
        issued = await reached(cluster, "person", "Issued")
        (certificate,) = x509.load_pem_x509_certificates(base64.b64decode(issued.status.certificate or ""))
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes()))
        failed = get_condition((await reached(cluster, "wrong", "Failed")).status.conditions, "Failed")
        assert failed is not None and failed.reason == "SignerValidationFailure"
        assert not (await requests.get("left")).status.conditions
        await cluster.world.sleep(3500)
        assert not await gone(cluster, "person") and not await gone(cluster, "wrong")
        await cluster.world.sleep(200)
        assert await gone(cluster, "person") and await gone(cluster, "wrong") and not await gone(cluster, "left")
        assert due(await requests.get("left")) - cluster.world.now() > 22 * 3600, "what nobody looked at stays a day"

    run_cluster(test, *signing(tmp_path), nodes=())


def test_the_request_of_a_node(tmp_path: Path) -> None:
    """It is approved once whoever asks has the right to that."""

    async def test(cluster: Cluster) -> None:
        requests = cluster.client[Request]
        user = User("system:bootstrap:abcdef", ("system:bootstrappers", "system:authenticated"))
        binding = rbac_v1.ClusterRoleBinding(
            metadata=meta_v1.ObjectMeta(name="boot"),
            role_ref=rbac_v1.RoleRef(api_group=RBAC, kind="ClusterRole", name="system:node-bootstrapper"),
            subjects=[rbac_v1.Subject(kind="Group", name="system:bootstrappers", api_group=RBAC)],
        )
        await cluster.client[rbac_v1.ClusterRoleBinding].create(binding)
        await cluster.world.sleep(1)  # rights are looked up in the cache, which follows
        newcomer = Client(InProcessTransport(cluster.server.app, user), cluster.world, "kubelet")
        await newcomer[Request].create(request_of("node", KUBELET_CLIENT, asked(**NODE_NAMES)))
        await cluster.world.sleep(10)
        assert not (await requests.get("node")).status.conditions
        binding.metadata.name = "approved"
        binding.role_ref.name = "system:certificates.k8s.io:certificatesigningrequests:nodeclient"
        await cluster.client[rbac_v1.ClusterRoleBinding].create(binding)
        node = await reached(cluster, "node", "Issued")
        approved = get_condition(node.status.conditions, "Approved")
        assert approved is not None and approved.reason == "AutoApproved"
        await cluster.world.sleep(3700)
        assert await gone(cluster, "node")

    run_cluster(test, *signing(tmp_path), nodes=())


def test_tokens_of_accounts(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        secrets, accounts = cluster.client[Secret], cluster.client[Account]
        account = await accounts.create(Account(metadata=meta_v1.ObjectMeta(name="robot", namespace="default")))

        def secret(name: str, of: str) -> Secret:
            notes = {"kubernetes.io/service-account.name": of}
            metadata = meta_v1.ObjectMeta(name=name, namespace="default", annotations=notes)
            return Secret(metadata=metadata, type="kubernetes.io/service-account-token")

        async def filled() -> Secret | None:
            found = await secrets.get("token", "default")
            return found if (found.data or {}).get("token") else None

        async def names() -> list[str]:
            return [s.metadata.name or "" for s in (await secrets.list("default")).items]

        await secrets.create(secret("token", "robot"))
        await secrets.create(secret("astray", "nobody"))
        found = await cluster.until(filled, 60)
        data = {k: base64.b64decode(v).decode() for k, v in (found.data or {}).items()}
        assert data["namespace"] == "default" and data["ca.crt"] == "PEM"
        assert (found.metadata.annotations or {})["kubernetes.io/service-account.uid"] == account.metadata.uid
        key = load_key((tmp_path / "sa.key").read_bytes())
        claims = jwt.decode(data["token"], key.public, [key.algorithm])
        assert claims["sub"] == "system:serviceaccount:default:robot" and "exp" not in claims
        assert await names() == ["token"], "the one that names no account is gone"
        await accounts.delete("robot", "default")

        async def none() -> bool:
            return not await names()

        await cluster.until(none, 60)

    run_cluster(test, *signing(tmp_path), nodes=())


def test_bootstrap_tokens(tmp_path: Path) -> None:
    async def test(cluster: Cluster) -> None:
        secrets, maps = cluster.client[Secret], cluster.client[core_v1.ConfigMap]
        text = "apiVersion: v1\nkind: Config\n"
        info = core_v1.ConfigMap(metadata=meta_v1.ObjectMeta(name="cluster-info", namespace="kube-public"))
        info.data = {"kubeconfig": text, "jws-kubeconfig-zzzzzz": "old"}
        await maps.create(info)

        async def token(id: str, seconds: float | None, signs: str = "true") -> None:
            values = {"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-signing": signs}
            if seconds is not None:
                values["expiration"] = format_time(cluster.world.now() + seconds)
            metadata = meta_v1.ObjectMeta(name=f"bootstrap-token-{id}", namespace="kube-system")
            await secrets.create(Secret(metadata=metadata, type="bootstrap.kubernetes.io/token", string_data=values))

        async def signed(*ids: str) -> bool:
            data = (await maps.get("cluster-info", "kube-public")).data or {}
            wanted = {f"jws-kubeconfig-{i}": signature(text, i, "0123456789abcdef") for i in ids}
            return data == {"kubeconfig": text} | wanted

        await token("aaaaaa", None)
        await token("bbbbbb", 600)
        await token("cccccc", None, "no")
        await cluster.until(lambda: signed("aaaaaa", "bbbbbb"), 60)
        await cluster.world.sleep(620)
        assert await signed("aaaaaa")
        left = [s.metadata.name for s in (await secrets.list("kube-system")).items]
        assert left == ["bootstrap-token-aaaaaa", "bootstrap-token-cccccc"]

    run_cluster(test, *signing(tmp_path), nodes=())


def test_kubectl(tmp_path: Path) -> None:
    """kubectl certificate approve, then a client that logs in with what was signed; the token of a Secret."""
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "jane.key").write_bytes(pem(key))
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "dev"), x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    request = x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    spec = {"request": base64.b64encode(request).decode(), "signerName": API_CLIENT, "usages": ["client auth"],
            "expirationSeconds": 3600}  # fmt: skip
    head = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    notes = {"kubernetes.io/service-account.name": "default"}
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
              "metadata": {"name": "old-style", "namespace": "default", "annotations": notes}}  # fmt: skip
    with running(tmp_path, store="memory") as kubectl:
        pki = tmp_path / "pki"
        settings = ["cluster-signing-cert-file", "cluster-signing-key-file", "service-account-private-key-file"]
        flags = [f"--set={s}={pki / f}" for s, f in zip(settings, ("ca.crt", "ca.key", "sa.key"), strict=True)]
        command = [sys.executable, "-m", "controllers", "--kubeconfig", str(kubectl.config), *flags]
        with (tmp_path / "controllers.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                for wanted in ("jane", "joe"):
                    text = json.dumps(head | {"metadata": {"name": wanted}, "spec": spec})
                    kubectl("create", "-f", "-", text=text)
                assert "approved" in kubectl("certificate", "approve", "jane")
                assert "denied" in kubectl("certificate", "deny", "joe")
                kubectl("wait", "--for=jsonpath={.status.certificate}", "csr/jane", "--timeout=30s")
                shown = [line.split()[-1] for line in kubectl("get", "csr", "--no-headers").splitlines()]
                assert shown == ["Approved,Issued", "Denied"]
                signed = kubectl("get", "csr", "jane", "-o", "jsonpath={.status.certificate}")
                (tmp_path / "jane.crt").write_bytes(base64.b64decode(signed))
                login = ["--client-certificate", str(tmp_path / "jane.crt"), "--client-key", str(tmp_path / "jane.key")]
                who = json.loads(kubectl("auth", "whoami", "-o", "json", *kubectl.server, *login))["status"]["userInfo"]
                assert who["username"] == "jane" and who["groups"] == ["dev", "system:authenticated"]
                kubectl("wait", "--for=create", "sa/default", "--timeout=30s")
                kubectl("create", "-f", "-", text=json.dumps(secret))
                kubectl("wait", "--for=jsonpath={.data.token}", "secret/old-style", "--timeout=30s")
                token = base64.b64decode(kubectl("get", "secret", "old-style", "-o", "jsonpath={.data.token}")).decode()
                who = json.loads(kubectl("auth", "whoami", "-o", "json", *kubectl.token(token)))["status"]["userInfo"]
                assert who["username"] == "system:serviceaccount:default:default"
            finally:
                process.terminate()
