"""Rules on drivers' names and parameters, shared by the kinds of storage.k8s.io."""

from __future__ import annotations

from apiserver.registry.strategy import Tree
from navarch.api import names
from navarch.api.errors import Cause, invalid, required, too_long

MAX_PARAMETERS = 512
MAX_PARAMETERS_SIZE = 256 * 1024
MAX_DRIVER_NAME = 63


def parameters_causes(parameters: Tree | None, path: str, need: bool = False) -> list[Cause]:
    listed = parameters or {}
    if need and not listed:
        return [required(path, "must contain at least one key/value pair")]
    if len(listed) > MAX_PARAMETERS:
        return [too_long(path, MAX_PARAMETERS)]
    out = [invalid(path, key, "field must not be empty.") for key in listed if not key]
    if sum(len(k) + len(v) for k, v in listed.items()) > MAX_PARAMETERS_SIZE:
        out.append(too_long(path, MAX_PARAMETERS_SIZE))
    return out


def driver_name(name: str, path: str) -> list[Cause]:
    if not name:
        return [required(path)]
    out = [too_long(path, MAX_DRIVER_NAME)] if len(name) > MAX_DRIVER_NAME else []
    return out + [invalid(path, name, m) for m in names.dns_subdomain(name.lower())]
