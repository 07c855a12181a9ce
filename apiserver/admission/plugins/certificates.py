"""CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who may decide on a signer's requests, who may
sign in its name, and that nobody asks a client certificate of system:masters."""

from __future__ import annotations

from typing import Any

from cryptography.x509.oid import NameOID

from apiserver.admission.chain import BasePlugin
from apiserver.authz.authorizer import Authorizer
from apiserver.kinds.certificates.certificatesigningrequests import parse_request
from apiserver.request import CREATE, SYSTEM_MASTERS, UPDATE, Attributes, RequestInfo
from navarch.api import wellknown
from navarch.api.errors import resource_forbidden
from navarch.api.kinds import Kind

Tree = dict[str, Any]
GROUP, RESOURCE = "certificates.k8s.io", "certificatesigningrequests"
API_CLIENT = wellknown.SIGNER_CLIENT


class Certificates(BasePlugin):
    """One of the three, by its name."""

    def __init__(self, authorizer: Authorizer, name: str) -> None:
        self.authorizer, self.name = authorizer, name

    def handles(self, operation: str, kind: Kind) -> bool:
        return operation in (CREATE, UPDATE) and (kind.group, kind.resource) == (GROUP, RESOURCE)

    async def validate(self, attributes: Attributes) -> None:
        spec = (attributes.obj or {}).get("spec") or {}
        signer = spec.get("signerName") or ""
        if self.name == "CertificateSubjectRestriction":
            if attributes.operation == CREATE:
                self._subject(attributes, spec, signer)
        elif self.name == "CertificateApproval":
            if attributes.subresource == "approval" and not self._may(attributes, "approve", signer):
                raise self._forbid(attributes, f'user not permitted to approve requests with signerName "{signer}"')
        elif attributes.subresource == "status":
            new, old = ((o or {}).get("status") or {} for o in (attributes.obj, attributes.old))
            signed = new.get("certificate") != old.get("certificate") or _failed(new) != _failed(old)
            if signed and not self._may(attributes, "sign", signer):
                raise self._forbid(attributes, f'user not permitted to sign requests with signerName "{signer}"')

    def _subject(self, attributes: Attributes, spec: Tree, signer: str) -> None:
        if signer != API_CLIENT:
            return
        subject = parse_request(spec.get("request") or "").subject
        if any(a.value == SYSTEM_MASTERS for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)):
            raise self._forbid(attributes, f"use of {API_CLIENT} signer with {SYSTEM_MASTERS} group is not allowed")

    def _may(self, attributes: Attributes, verb: str, signer: str) -> bool:
        """Leave for this signer, or for all of its domain (``example.com/*``)."""
        for name in (signer, signer.partition("/")[0] + "/*"):
            info = RequestInfo(verb, "", True, GROUP, "*", "signers", name=name)
            if self.authorizer.authorize(attributes.context.user, info)[0]:
                return True
        return False

    def _forbid(self, attributes: Attributes, why: str) -> Exception:
        return resource_forbidden(RESOURCE, GROUP, attributes.name, why)


def _failed(status: Tree) -> bool:
    return any(c.get("type") == "Failed" for c in status.get("conditions") or ())
