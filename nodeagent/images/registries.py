"""The home's file registries.conf: mirrors, other locations, plain HTTP and logins of registries.

It is TOML, in the words of containers-registries.conf(5) as far as they mean something here, and a key that means nothing is
an error. ``username``, ``password`` and ``ca-file`` are ours; a file that has a password must be its owner's alone::

    [[registry]]
    prefix = "docker.io"            # images whose full name begins so; default: the location
    location = "docker.io"          # where they are; default: the prefix
    insecure = false                # also take HTTP, and certificates that nobody knows

    [[registry.mirror]]             # asked first, in this order
    location = "127.0.0.1:5000/hub"
    pull-from-mirror = "all"        # or digest-only, tag-only
"""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodeagent.images.credentials import Login
from nodeagent.images.reference import Reference

DOCKER_HUB_API = "registry-1.docker.io"
_REGISTRY = {"prefix": str, "location": str, "insecure": bool, "blocked": bool, "mirror": list, "ca-file": str,
             "username": str, "password": str}  # fmt: skip
_MIRROR = {"location": str, "insecure": bool, "pull-from-mirror": str, "ca-file": str, "username": str, "password": str}
_PULLS = ("all", "digest-only", "tag-only")


class BadRegistries(ValueError):
    """The file cannot be used; the message names file and key."""


@dataclass(frozen=True)
class Endpoint:
    """One place that may have an image: ``host`` (with a port, maybe) and the image's path there."""

    host: str
    path: str
    insecure: bool = False
    ca_file: str = ""
    login: Login | None = None
    mirror: bool = False

    @property
    def api(self) -> str:
        """The host that answers."""
        return DOCKER_HUB_API if self.host in ("docker.io", "index.docker.io") else self.host


@dataclass(frozen=True)
class Registry:
    prefix: str
    location: str
    insecure: bool = False
    blocked: bool = False
    ca_file: str = ""
    login: Login | None = None
    mirrors: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    def matches(self, name: str) -> bool:
        """``prefix`` is a beginning of whole parts of the name, or ``*.host`` for all hosts below one."""
        if self.prefix.startswith("*."):
            return name.split("/", 1)[0].partition(":")[0].endswith(self.prefix[1:])
        return name == self.prefix or name.startswith((f"{self.prefix}/", f"{self.prefix}:"))


class Registries:
    def __init__(self, registries: Iterable[Registry] = ()) -> None:
        self.registries = sorted(registries, key=lambda r: len(r.prefix), reverse=True)

    def endpoints(self, reference: Reference) -> list[Endpoint]:
        """Where to ask for an image, in order. Raises BadRegistries if the file forbids it."""
        name = reference.repository
        registry = next((r for r in self.registries if r.matches(name)), None)
        if registry is None:
            return [Endpoint(reference.domain, reference.path)]
        if registry.blocked:
            raise BadRegistries(f"registries.conf blocks {registry.prefix}")
        wild = registry.prefix.startswith("*.")
        rest = "" if wild else name[len(registry.prefix) :]
        out = []
        for mirror in registry.mirrors:
            pulls = mirror.get("pull-from-mirror", "all")
            if pulls == "all" or (pulls == "digest-only") == bool(reference.digest):
                place = mirror["location"] + (rest if not wild else f"/{reference.path}")
                out.append(_endpoint(place, mirror.get("insecure", False), mirror, True))
        place = name if wild and not registry.location else registry.location + rest
        own = {"ca-file": registry.ca_file}
        out.append(_endpoint(place, registry.insecure, own, False, registry.login))
        return out


def _endpoint(place: str, insecure: bool, entry: dict[str, Any], mirror: bool, login: Login | None = None) -> Endpoint:
    host, _, path = place.partition("/")
    return Endpoint(host, path, insecure, entry.get("ca-file", ""), login or login_of(entry), mirror)


def login_of(entry: dict[str, Any]) -> Login | None:
    return Login(entry["username"], entry.get("password", "")) if entry.get("username") else None


def load(*paths: Path) -> Registries:
    """Reads files that may be missing; what an earlier one says of a prefix counts. Raises BadRegistries."""
    registries: dict[str, Registry] = {}
    for path in paths:
        try:
            text = path.read_text()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise BadRegistries(f"{path}: {error}") from None
        if "password" in text and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadRegistries(f"{path} has a password and others may read it: chmod 600 {path}")
        for registry in parse(text, str(path)):
            registries.setdefault(registry.prefix, registry)
    return Registries(registries.values())


def parse(text: str, name: str = "registries.conf") -> list[Registry]:
    """Raises BadRegistries."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRegistries(f"{name}: {error}") from None
    for key in document:
        if key != "registry":
            raise BadRegistries(f'{name}: unknown key "{key}"; it has [[registry]] entries only')
    entries = document.get("registry", [])
    if not isinstance(entries, list):
        raise BadRegistries(f"{name}: write [[registry]], not [registry]")
    return [_registry(entry, f"{name}: registry[{i}]") for i, entry in enumerate(entries)]


def _checked(entry: Any, kinds: dict[str, type], where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise BadRegistries(f"{where} is no table")
    for key, value in entry.items():
        if key not in kinds:
            raise BadRegistries(f'{where}: unknown key "{key}"; known are {", ".join(kinds)}')
        if not isinstance(value, kinds[key]):
            raise BadRegistries(f"{where}.{key}: expected {_KINDS[kinds[key]]}")
    if "password" in entry and not entry.get("username"):
        raise BadRegistries(f"{where}.password: there is no username")
    return entry


_KINDS = {str: "text in quotes", bool: "true or false", list: "[[registry.mirror]] entries"}


def _location(text: str, where: str) -> str:
    if "://" in text or not text.split("/", 1)[0] or text.endswith("/"):
        raise BadRegistries(f'{where}: "{text}": expected HOST[:PORT][/PATH]')
    return text


def _registry(entry: Any, where: str) -> Registry:
    fields = _checked(entry, _REGISTRY, where)
    location = fields.get("location", "")
    prefix = fields.get("prefix", "") or location
    if not prefix:
        raise BadRegistries(f"{where}: needs a prefix or a location")
    if not location and not prefix.startswith("*."):
        location = prefix
    if location:
        _location(location, f"{where}.location")
    mirrors = []
    for i, mirror in enumerate(fields.get("mirror", [])):
        place = f"{where}.mirror[{i}]"
        _checked(mirror, _MIRROR, place)
        _location(mirror.get("location", ""), f"{place}.location")
        if mirror.get("pull-from-mirror", "all") not in _PULLS:
            raise BadRegistries(f"{place}.pull-from-mirror: expected one of {', '.join(_PULLS)}")
        mirrors.append(mirror)
    return Registry(
        prefix, location, fields.get("insecure", False), fields.get("blocked", False), fields.get("ca-file", ""),
        login_of(fields), tuple(mirrors),
    )  # fmt: skip
