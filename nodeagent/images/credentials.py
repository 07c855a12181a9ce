"""Credentials for registries, from pull secrets: which entries of docker's config files are for an image. Pure.

The rules are kubelet's: an entry's name is a host, with ``*`` for one label and maybe a port and a path; the longest name is
tried first; Docker Hub's goes by its old name ``index.docker.io``, too.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import json
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from navarch.api import wellknown
from navarch.api.types import core_v1
from nodeagent.images.reference import Reference

TYPES = {wellknown.DOCKER_CONFIG_JSON: ".dockerconfigjson", wellknown.DOCKER_CONFIG: ".dockercfg"}
DOCKER_HUB = "index.docker.io"


class Login(NamedTuple):
    """User name and password for one registry."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.user!r}, ...)"  # tracebacks and logs must not have the password

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def of_secrets(reference: Reference, secrets: Iterable[core_v1.Secret]) -> list[Login]:
    """The logins to try for an image, best first; empty: without any."""
    entries: list[tuple[str, Login]] = []
    for secret in secrets:
        key = TYPES.get(secret.type or "")
        text = (secret.data or {}).get(key, "") if key else ""
        try:
            document = json.loads(base64.b64decode(text)) if text else {}
        except (ValueError, RecursionError):
            continue
        if key == ".dockerconfigjson":
            document = document.get("auths") if isinstance(document, dict) else None
        entries += of_config(document)
    return matching(reference, entries)


def of_config(document: Any) -> list[tuple[str, Login]]:
    """Name and login of each entry of a docker config's ``auths`` (or of a whole .dockercfg)."""
    entries = []
    for name, entry in document.items() if isinstance(document, Mapping) else ():
        login = _login(entry)
        if login is not None:
            with contextlib.suppress(ValueError):  # a name that is no host's is no image's
                entries.append((_key(str(name)), login))
    return entries


def _login(entry: Any) -> Login | None:
    if not isinstance(entry, Mapping):
        return None
    user, password = entry.get("username"), entry.get("password")
    if not user and isinstance(entry.get("auth"), str):
        try:
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except ValueError:
            return None
    if not (isinstance(user, str) and user and isinstance(password or "", str)):
        return None
    login = Login(user, password or "")
    try:
        login.basic  # noqa: B018 - JSON may have halves of characters, which cannot be sent
    except UnicodeEncodeError:
        return None
    return login


def _key(name: str) -> str:
    """An entry's name without scheme and API version: ``https://index.docker.io/v1/`` is ``index.docker.io``."""
    parts = urllib.parse.urlsplit(name if "://" in name else f"https://{name}")
    path = parts.path
    if path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    return parts.netloc + (path if path != "/" else "")


def matching(reference: Reference, entries: Iterable[tuple[str, Login]]) -> list[Login]:
    longest_first = sorted(entries, key=lambda e: e[0], reverse=True)
    logins = [login for key, login in longest_first if _matches(key, reference)]
    if not logins and reference.domain == "docker.io":
        logins = [login for key, login in longest_first if key == DOCKER_HUB]
    return list(dict.fromkeys(logins))


def _matches(key: str, reference: Reference) -> bool:
    host, _, path = key.partition("/")
    name, _, port = host.partition(":")
    own_name, _, own_port = reference.domain.partition(":")
    labels, own = name.split("."), own_name.split(".")
    if port != own_port or len(labels) != len(own) or not name:
        return False
    if not all(fnmatch.fnmatchcase(mine, pattern) for mine, pattern in zip(own, labels, strict=True)):
        return False
    return f"/{reference.path}".startswith(f"/{path}")
