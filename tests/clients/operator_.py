"""An operator for kopf: a Widget becomes a ConfigMap of its colour. Run by test_kopf.py as ``kopf run``."""

from __future__ import annotations

from typing import Any

import kopf
from kubernetes import client, config

GROUP = "clients.example.com"


@kopf.on.startup()
def start(settings: kopf.OperatorSettings, **_: Any) -> None:
    config.load_kube_config()
    settings.peering.name = "widgets"
    settings.peering.mandatory = True
    settings.posting.loggers = True
    settings.persistence.finalizer = f"{GROUP}/operator"


@kopf.on.create(GROUP, "v1", "widgets")
def created(spec: kopf.Spec, name: str, namespace: str, **_: Any) -> dict[str, str]:
    body: dict[str, Any] = {"metadata": {"name": name}, "data": {"colour": spec.get("colour", "none")}}
    kopf.adopt(body)
    client.CoreV1Api().create_namespaced_config_map(namespace, body)
    return {"config-map": name}


@kopf.on.update(GROUP, "v1", "widgets", field="spec.colour")
def painted(old: str | None, new: str | None, name: str, namespace: str, patch: kopf.Patch, **_: Any) -> None:
    client.CoreV1Api().patch_namespaced_config_map(name, namespace, {"data": {"colour": new}})
    patch.status["painted"] = f"{old} to {new}"


@kopf.on.delete(GROUP, "v1", "widgets")
def deleted(name: str, namespace: str, **_: Any) -> None:
    client.CoreV1Api().create_namespaced_config_map(namespace, {"metadata": {"name": f"{name}-was-here"}})


@kopf.on.event("configmaps", labels={"watched": "yes"})  # type: ignore[arg-type]
def seen(event: dict[str, Any], name: str, namespace: str, **_: Any) -> None:
    if event["type"] == "ADDED":
        client.CoreV1Api().patch_namespaced_config_map(name, namespace, {"data": {"seen": "yes"}})
