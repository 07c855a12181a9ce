"""One manifest of every stored kind, with lists and nested objects in which the server fills in defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Tree = dict[str, Any]

SAMPLES: list[Tree] = list(yaml.safe_load_all(Path(__file__).with_name("samples.yaml").read_text()))


def signing_request() -> str:
    """A PEM certificate request in base64."""
    import base64

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


def fill_in(value: Any) -> Any:
    """The manifest with the words TEMPLATE, JOB and REQUEST replaced."""
    if isinstance(value, dict):
        return {key: fill_in(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill_in(inner) for inner in value]
    return fill_in(WORDS[value]) if isinstance(value, str) and value in WORDS else value


WORDS: dict[Any, Any] = {
    "TEMPLATE": next(s for s in SAMPLES if s["kind"] == "PodTemplate")["template"],
    "JOB": next(s for s in SAMPLES if s["kind"] == "Job")["spec"]["template"],
    "REQUEST": signing_request(),
}
SAMPLES = fill_in(SAMPLES)


def path_of(obj: Tree, resource: str, namespaced: bool) -> str:
    """The path of the object's collection."""
    version = obj["apiVersion"]
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{prefix}/namespaces/default/{resource}" if namespaced else f"{prefix}/{resource}"
