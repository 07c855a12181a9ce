"""Volumes as describe shows them: what kind each is, and the fields that matter for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli.describing.writer import Writer, boolean

Tree = dict[str, Any]
Rows = list[tuple[str, str]]


def describe(writer: Writer, volumes: list[Tree], space: str) -> None:
    """``space`` is " " inside a pod template."""
    level = f"{space} " if space else ""
    if not volumes:
        writer.lines.append(f"{level}Volumes:\t<none>")
        return
    writer.lines.append(f"{level}Volumes:")
    for volume in volumes:
        writer.lines.append(f"{space}  {volume.get('name') or ''}:")
        kind = next((k for k in volume if k != "name"), "")
        if kind == "projected":
            _projected(writer, volume["projected"])
        elif kind == "downwardAPI":
            writer.line(2, "Type:", "DownwardAPI (a volume populated by information about the pod)")
            writer.line(2, "Items:")
            for item in volume["downwardAPI"].get("items") or ():
                if item.get("fieldRef"):
                    writer.line(3, f"{item['fieldRef'].get('fieldPath')} -> {item.get('path')}")
                elif item.get("resourceFieldRef"):
                    writer.line(3, f"{item['resourceFieldRef'].get('resource')} -> {item.get('path')}")
        else:
            rows = KINDS[kind](volume[kind]) if kind in KINDS else [("Type", kind or "<unknown>")]
            for title, value in rows:
                writer.line(2, f"{title}:", value)


def _empty_dir(v: Tree) -> Rows:
    return [
        ("Type", "EmptyDir (a temporary directory that shares a pod's lifetime)"),
        ("Medium", v.get("medium") or ""),
        ("SizeLimit", str(v.get("sizeLimit") or "<unset>")),
    ]


def _config_map(v: Tree) -> Rows:
    return [
        ("Type", "ConfigMap (a volume populated by a ConfigMap)"),
        ("Name", v.get("name") or ""),
        ("Optional", boolean(v.get("optional"))),
    ]


def _secret(v: Tree) -> Rows:
    return [
        ("Type", "Secret (a volume populated by a Secret)"),
        ("SecretName", v.get("secretName") or ""),
        ("Optional", boolean(v.get("optional"))),
    ]


def _host_path(v: Tree) -> Rows:
    return [
        ("Type", "HostPath (bare host directory volume)"),
        ("Path", v.get("path") or ""),
        ("HostPathType", v.get("type") or ""),
    ]


def _claim(v: Tree) -> Rows:
    return [
        ("Type", "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)"),
        ("ClaimName", v.get("claimName") or ""),
        ("ReadOnly", boolean(v.get("readOnly"))),
    ]


def _nfs(v: Tree) -> Rows:
    return [
        ("Type", "NFS (an NFS mount that lasts the lifetime of a pod)"),
        ("Server", v.get("server") or ""),
        ("Path", v.get("path") or ""),
        ("ReadOnly", boolean(v.get("readOnly"))),
    ]


KINDS: dict[str, Callable[[Tree], Rows]] = {
    "emptyDir": _empty_dir,
    "configMap": _config_map,
    "secret": _secret,
    "hostPath": _host_path,
    "persistentVolumeClaim": _claim,
    "nfs": _nfs,
}


def _projected(writer: Writer, volume: Tree) -> None:
    writer.line(2, "Type:", "Projected (a volume that contains injected data from multiple sources)")
    for source in volume.get("sources") or ():
        if source.get("secret"):
            writer.line(2, "SecretName:", source["secret"].get("name") or "")
            writer.line(2, "Optional:", _pointer(source["secret"].get("optional")))
        elif source.get("downwardAPI"):
            writer.line(2, "DownwardAPI:", "true")
        elif source.get("configMap"):
            writer.line(2, "ConfigMapName:", source["configMap"].get("name") or "")
            writer.line(2, "ConfigMapOptional:", _pointer(source["configMap"].get("optional")))
        elif source.get("serviceAccountToken"):
            seconds = source["serviceAccountToken"].get("expirationSeconds", 3600)
            writer.line(2, "TokenExpirationSeconds:", str(seconds))


def _pointer(value: bool | None) -> str:
    return "<nil>" if value is None else boolean(value)
