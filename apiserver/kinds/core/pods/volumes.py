"""Checks of the volumes of a pod spec."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import Tree
from apiserver.kinds.core.pods.containers import PULL_POLICIES, descending_path, field_ref, resource_field_ref
from navarch.api import names, quantity
from navarch.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required

HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
PROJECTIONS = ("secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate")
MODE_TEXT = "must be a number between 0 and 0777 (octal), both inclusive"
MINUTES_10 = 600


def validate_volumes(volumes: Any, path: str) -> tuple[dict[str, Tree], list[Cause]]:
    """The volumes by name, as mounts look them up, and what is wrong with them."""
    by_name: dict[str, Tree] = {}
    out: list[Cause] = []
    for i, volume in enumerate(volumes or ()):
        at, name = f"{path}[{i}]", volume.get("name") or ""
        wrong = _source(volume, at)
        if not name:
            wrong.append(required(f"{at}.name"))
        else:
            wrong += [invalid(f"{at}.name", name, m) for m in names.dns_label(name)]
        if name in by_name:
            wrong.append(duplicate(f"{at}.name", name))
        if not wrong:
            by_name[name] = volume
        out += wrong
    return by_name, out


def _source(volume: Tree, at: str) -> list[Cause]:
    sources = [field for field in volume if field != "name"]
    if not sources:
        return [required(at, "must specify a volume type")]
    out = [forbidden(f"{at}.{extra}", "may not specify more than 1 volume type") for extra in sources[1:]]
    field, source = sources[0], volume[sources[0]]
    here = f"{at}.{field}"
    match field:
        case "hostPath":
            out += _host_path(source, here)
        case "emptyDir":
            limit = source.get("sizeLimit")
            if limit is not None and quantity.parse(limit) < 0:
                out.append(forbidden(f"{here}.sizeLimit", "SizeLimit field must be a valid resource quantity"))
        case "configMap":
            out += _keyed(source, here, "name")
        case "secret":
            out += _keyed(source, here, "secretName")
        case "downwardAPI":
            out += _mode(source.get("defaultMode"), f"{here}.defaultMode")
            out += _downward(source.get("items"), here)
        case "projected":
            out += _projected(source, here)
        case "persistentVolumeClaim":
            if not source.get("claimName"):
                out.append(required(f"{here}.claimName"))
        case "nfs":
            out += [required(f"{here}.{f}") for f in ("server", "path") if not source.get(f)]
            if source.get("path") and not source["path"].startswith("/"):
                out.append(invalid(f"{here}.path", source["path"], "must be an absolute path"))
        case "csi":
            if not source.get("driver"):
                out.append(required(f"{here}.driver"))
        case "image":
            if not source.get("reference"):
                out.append(required(f"{here}.reference"))
            policy = source.get("pullPolicy")
            if policy is not None and policy not in PULL_POLICIES:
                out.append(not_supported(f"{here}.pullPolicy", policy, PULL_POLICIES))
        case "ephemeral":
            if not source.get("volumeClaimTemplate"):
                out.append(required(f"{here}.volumeClaimTemplate"))
    return out


def _host_path(source: Tree, at: str) -> list[Cause]:
    path = source.get("path") or ""
    if not path:
        return [required(f"{at}.path")]
    out = [invalid(f"{at}.path", path, "must not contain '..'")] if ".." in path.split("/") else []
    if (source.get("type") or "") not in HOST_PATH_TYPES:
        out.append(not_supported(f"{at}.type", source["type"], HOST_PATH_TYPES))
    return out


def _mode(mode: int | None, at: str) -> list[Cause]:
    return [invalid(at, mode, MODE_TEXT)] if mode is not None and not 0 <= mode <= 0o777 else []


def _keyed(source: Tree, at: str, name_field: str) -> list[Cause]:
    out = [] if source.get(name_field) else [required(f"{at}.{name_field}")]
    return out + _mode(source.get("defaultMode"), f"{at}.defaultMode") + _items(source.get("items"), f"{at}.items")


def _local_path(path: str, at: str) -> list[Cause]:
    out = descending_path(path, at)
    if path.startswith("..") and path != ".." and not path.startswith("../"):
        out.append(invalid(at, path, "must not start with '..'"))
    return out


def _items(items: Any, path: str) -> list[Cause]:
    out: list[Cause] = []
    for i, item in enumerate(items or ()):
        at = f"{path}[{i}]"
        if not item.get("key"):
            out.append(required(f"{at}.key"))
        if not item.get("path"):
            out.append(required(f"{at}.path"))
        else:
            out += _local_path(item["path"], f"{at}.path")
        out += _mode(item.get("mode"), f"{at}.mode")
    return out


def _downward(items: Any, at: str) -> list[Cause]:
    out: list[Cause] = []
    for item in items or ():
        if not item.get("path"):
            out.append(required(f"{at}.path"))
        else:
            out += _local_path(item["path"], f"{at}.path")
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if field is not None:
            out += field_ref(field, f"{at}.fieldRef", VOLUME_FIELDS)
            if resource is not None:
                text = "fieldRef and resourceFieldRef can not be specified simultaneously"
                out.append(invalid(at, "resource", text))
        elif resource is not None:
            out += resource_field_ref(resource, f"{at}.resourceFieldRef", True)
        else:
            out.append(required(at, "one of fieldRef and resourceFieldRef is required"))
        out += _mode(item.get("mode"), f"{at}.mode")
    return out


def _projected(source: Tree, at: str) -> list[Cause]:
    out = _mode(source.get("defaultMode"), f"{at}.defaultMode")
    paths: set[str] = set()

    def claim(path: str | None, name: str, text: str) -> None:
        if path and path in paths:
            out.append(invalid(at, name, text))
        paths.add(path or "")

    for i, part in enumerate(source.get("sources") or ()):
        here = f"{at}.sources[{i}]"
        for field in ("secret", "configMap"):
            if part.get(field) is None:
                continue
            if not part[field].get("name"):
                out.append(required(f"{here}.{field}.name"))
            out += _items(part[field].get("items"), f"{here}.{field}.items")
            for item in part[field].get("items") or ():
                claim(item.get("path"), part[field].get("name") or "", "conflicting duplicate paths")
        if part.get("downwardAPI") is not None:
            items = part["downwardAPI"].get("items")
            out += _downward(items, f"{here}.downwardAPI")
            for item in items or ():
                claim(item.get("path"), item.get("path") or "", "conflicting duplicate paths")
        if part.get("serviceAccountToken") is not None:
            token, token_at = part["serviceAccountToken"], f"{here}.serviceAccountToken"
            seconds = token.get("expirationSeconds") or 0
            if seconds < MINUTES_10:
                text = "may not specify a duration less than 10 minutes"
                out.append(invalid(f"{token_at}.expirationSeconds", seconds, text))
            elif seconds > 1 << 32:
                text = "may not specify a duration larger than 2^32 seconds"
                out.append(invalid(f"{token_at}.expirationSeconds", seconds, text))
            if not token.get("path"):
                out.append(required(f"{token_at}.path"))
            else:
                out += _local_path(token["path"], f"{token_at}.path")
                claim(token["path"], token["path"], "conflicting duplicate paths")
        count = sum(1 for p in PROJECTIONS if part.get(p) is not None)
        if count > 1:
            out.append(forbidden(here, "may not specify more than 1 volume type per source"))
    return out
