"""Kubeconfig files: where a cluster is and who we are there; read, merged and written as kubectl does.

Read: clusters, users (certificates, tokens, token files) and contexts, data inline or in files whose relative paths
count from the kubeconfig's folder. Credential plugins (``exec``, ``auth-provider``) are refused with a clear error.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVICE_ACCOUNT_DIRECTORY = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeconfigError(Exception):
    """The kubeconfig is missing, malformed, or asks for what we do not support."""


@dataclass(frozen=True)
class Config:
    """One cluster as one user: everything a transport needs. Certificates and keys are PEM."""

    server: str
    ca: bytes = b""  # empty: the system's trust store
    client_certificate: bytes = b""
    client_key: bytes = b""
    token: str = ""
    token_file: str = ""  # read again as it changes; wins over token
    insecure: bool = False
    tls_server_name: str = ""
    namespace: str = "default"
    user: str = ""
    cluster: str = ""
    context: str = ""


def paths(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> list[Path]:
    """The files that count: the one given, else those of $KUBECONFIG, else ~/.kube/config."""
    if path:
        return [Path(path)]
    environ = os.environ if environ is None else environ
    listed = [Path(p) for p in environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    return listed or [Path("~/.kube/config").expanduser()]


def load(path: str | os.PathLike[str] | None = None, context: str | None = None) -> Config:
    """The cluster and user of a context (default: the current one). Raises KubeconfigError."""
    files = paths(path)
    merged = _merge(files)
    name = context or merged.get("current-context") or ""
    chosen: Mapping[str, Any]
    if name:
        chosen = _named(merged, "contexts", "context", name)
    elif len(merged["clusters"]) == 1 and len(merged["users"]) <= 1:
        chosen = {"cluster": next(iter(merged["clusters"])), "user": next(iter(merged["users"]), "")}
    else:
        raise KubeconfigError(f"no current-context in {', '.join(map(str, files))}")
    cluster = _named(merged, "clusters", "cluster", chosen.get("cluster") or "")
    user = _named(merged, "users", "user", chosen["user"]) if chosen.get("user") else {}
    for unsupported in ("exec", "auth-provider"):
        if user.get(unsupported):
            raise KubeconfigError(f"user {chosen['user']!r}: {unsupported} credentials are not supported")
    if not cluster.get("server"):
        raise KubeconfigError(f"cluster {chosen.get('cluster')!r} has no server")
    token_file = user.get("tokenFile") or ""
    return Config(
        server=cluster["server"],
        ca=_data(cluster, "certificate-authority"),
        client_certificate=_data(user, "client-certificate"),
        client_key=_data(user, "client-key"),
        token=user.get("token") or "",
        token_file=str(_folder(user) / token_file) if token_file else "",
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        tls_server_name=cluster.get("tls-server-name") or "",
        namespace=chosen.get("namespace") or "default",
        user=chosen.get("user") or "",
        cluster=chosen.get("cluster") or "",
        context=name,
    )


def in_cluster(environ: Mapping[str, str] | None = None, directory: Path = SERVICE_ACCOUNT_DIRECTORY) -> Config:
    """The cluster whose pod we run in, as its service account. Raises KubeconfigError outside of one."""
    environ = os.environ if environ is None else environ
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    token = directory / "token"
    if not host or not port or not token.exists():
        raise KubeconfigError("not inside a pod: no KUBERNETES_SERVICE_HOST or no service account token")
    namespace = directory / "namespace"
    return Config(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ca=(directory / "ca.crt").read_bytes(),
        token_file=str(token),
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
    )


def tree(config: Config, name: str = "navarch") -> dict[str, Any]:
    """A kubeconfig with one cluster, user and context, all called ``name`` where the config does not say."""
    cluster: dict[str, Any] = {"server": config.server}
    if config.ca:
        cluster["certificate-authority-data"] = base64.b64encode(config.ca).decode()
    if config.insecure:
        cluster["insecure-skip-tls-verify"] = True
    if config.tls_server_name:
        cluster["tls-server-name"] = config.tls_server_name
    user: dict[str, Any] = {}
    if config.client_certificate:
        user["client-certificate-data"] = base64.b64encode(config.client_certificate).decode()
        user["client-key-data"] = base64.b64encode(config.client_key).decode()
    if config.token:
        user["token"] = config.token
    if config.token_file:
        user["tokenFile"] = config.token_file
    context: dict[str, Any] = {"cluster": config.cluster or name, "user": config.user or name}
    if config.namespace != "default":
        context["namespace"] = config.namespace
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context["cluster"], "cluster": cluster}],
        "users": [{"name": context["user"], "user": user}],
        "contexts": [{"name": config.context or name, "context": context}],
        "current-context": config.context or name,
        "preferences": {},
    }


def write(path: str | os.PathLike[str], config: Config, name: str = "navarch") -> None:
    """Writes a kubeconfig that only its owner can read; a reader sees the old file or the new one, never half."""
    target = Path(path)
    import tempfile

    import yaml

    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            yaml.safe_dump(tree(config, name), file, sort_keys=False)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def memory_file(data: bytes) -> Iterator[str]:
    """A path to ``data`` that exists in memory only and for the time of the context."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("navarch")
        try:
            os.write(fd, data)
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
    else:
        import tempfile

        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name


def _decoded(path: Path, text: str) -> Any:
    """Decodes a kubeconfig. Ours are JSON, which is YAML, too, and is read without the library."""
    if text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            pass  # YAML's flow style
    import yaml

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise KubeconfigError(f"{path}: {error}") from error


def _merge(files: Sequence[Path]) -> dict[str, Any]:
    """All files as one: for every name, and for the current context, the first file that has it wins."""
    out: dict[str, Any] = {"clusters": {}, "users": {}, "contexts": {}, "current-context": ""}
    any_file = False
    for path in files:
        try:
            text = path.read_text()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise KubeconfigError(f"{path}: {error.strerror}") from error
        any_file = True
        content = _decoded(path, text)
        if not isinstance(content, dict):
            raise KubeconfigError(f"{path}: not a kubeconfig")
        for section, inner in (("clusters", "cluster"), ("users", "user"), ("contexts", "context")):
            for entry in content.get(section) or ():
                value = dict(entry.get(inner) or {})
                value["_folder"] = path.parent
                out[section].setdefault(entry.get("name", ""), value)
        out["current-context"] = out["current-context"] or content.get("current-context") or ""
    if not any_file:
        raise KubeconfigError(f"no kubeconfig at {', '.join(map(str, files))}")
    return out


def _named(merged: Mapping[str, Any], section: str, what: str, name: str) -> Mapping[str, Any]:
    try:
        entry: Mapping[str, Any] = merged[section][name]
    except KeyError:
        raise KubeconfigError(f"{what} {name!r} does not exist") from None
    return entry


def _folder(entry: Mapping[str, Any]) -> Path:
    folder: Path = entry["_folder"]
    return folder


def _data(entry: Mapping[str, Any], key: str) -> bytes:
    """``key``-data decoded, else the content of the file that ``key`` names, else nothing."""
    if inline := entry.get(f"{key}-data"):
        try:
            return base64.b64decode(str(inline), validate=True)
        except binascii.Error as error:
            raise KubeconfigError(f"{key}-data is not base64: {error}") from error
    if path := entry.get(key):
        try:
            return Path(_folder(entry), path).read_bytes()
        except OSError as error:
            raise KubeconfigError(f"{key}: {error}") from error
    return b""
