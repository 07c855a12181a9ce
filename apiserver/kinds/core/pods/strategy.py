"""The strategy of pods."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import bool_text, kind, spec_of, status_of
from apiserver.kinds.core.pods.columns import COLUMNS, pod_cells
from apiserver.kinds.core.pods.defaults import default_pod
from apiserver.kinds.core.pods.ephemeral import only_ephemeral, validate_ephemeral_update
from apiserver.kinds.core.pods.resize import only_resources, validate_resize
from apiserver.kinds.core.pods.update import validate_pod_status, validate_pod_update
from apiserver.kinds.core.pods.validation import form_of, validate_pod
from apiserver.kinds.core.pods.warnings import pod_warnings
from apiserver.registry.strategy import Strategy, Tree
from apiserver.request import Context
from navarch.api import qos, quantity
from navarch.api.errors import Cause
from navarch.api.pods import TERMINAL_PHASES


def _qos(spec: Tree) -> str:
    try:
        return qos.qos_of_tree(spec)
    except quantity.QuantityError:
        return "BestEffort"  # the pod is refused a moment later


class PodStrategy(Strategy):
    kind = kind("v1", "Pod")
    has_status = True
    defaults_spec = True
    selectable_fields = (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
        "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
    )  # fmt: skip
    indexed_field = "spec.nodeName"
    columns = COLUMNS
    part_subresources = ("ephemeralcontainers", "resize")
    forms = True

    def form(self, obj: Tree) -> bytes:
        return form_of(obj["spec"])

    def default(self, obj: Tree) -> None:
        default_pod(obj.setdefault("spec", {}))

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = {"phase": "Pending", "qosClass": _qos(obj["spec"])}

    def prepare_update(self, context: Context, obj: Tree, old: Tree) -> None:
        obj["status"] = dict(old.get("status") or {})

    def validate(self, obj: Tree) -> list[Cause]:
        return validate_pod(obj)

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return validate_pod_update(obj, old)

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        return validate_pod_status(obj, old)

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        return pod_warnings(obj) if old is None else []

    def only_part(self, subresource: str, obj: Tree, old: Tree) -> Tree:
        return only_resources(obj, old) if subresource == "resize" else only_ephemeral(obj, old)

    def validate_part(self, subresource: str, obj: Tree, old: Tree) -> list[Cause]:
        return validate_resize(obj, old) if subresource == "resize" else validate_ephemeral_update(obj, old)

    def fields(self, obj: Tree) -> dict[str, str]:
        spec, status = spec_of(obj), status_of(obj)
        addresses = status.get("podIPs") or ()
        return {
            "spec.nodeName": spec.get("nodeName") or "",
            "spec.restartPolicy": spec.get("restartPolicy") or "",
            "spec.schedulerName": spec.get("schedulerName") or "",
            "spec.serviceAccountName": spec.get("serviceAccountName") or "",
            "spec.hostNetwork": bool_text(spec.get("hostNetwork")),
            "status.phase": status.get("phase") or "",
            "status.podIP": (addresses[0].get("ip") if addresses else status.get("podIP")) or "",
            "status.podIPs": ",".join(a.get("ip") or "" for a in addresses),
            "status.nominatedNodeName": status.get("nominatedNodeName") or "",
        }

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return pod_cells(obj, now)

    def graceful_seconds(self, obj: Tree, seconds: int | None) -> int:
        """The asked or the spec's grace; none for a pod that no node runs or that has ended."""
        if seconds is None:
            seconds = spec_of(obj).get("terminationGracePeriodSeconds")
        if seconds is None:
            seconds = 30
        if not spec_of(obj).get("nodeName") or status_of(obj).get("phase") in TERMINAL_PHASES:
            return 0
        return 1 if seconds < 0 else seconds
