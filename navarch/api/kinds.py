"""The built-in kinds: what names a kind has, whether it lives in a namespace, and its typed struct.

A kind that is listed here and that the API server has a strategy for is served; see apiserver/catalog.py.
"""

from __future__ import annotations

import functools
import importlib
import re
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from navarch.api.types.base import Struct
from navarch.api.types.index import INDEX

T = TypeVar("T", bound=Struct)


@dataclass(frozen=True)
class Kind:
    """A resource type: ``resource`` is the plural lower-case name in paths."""

    group: str
    version: str
    kind: str
    resource: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    singular: str = ""
    list_name: str = ""  # the kind of lists where it is not KIND + "List"

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular_name(self) -> str:
        return self.singular or self.kind.lower()

    @property
    def list_kind(self) -> str:
        return self.list_name or self.kind + "List"

    @property
    def path_prefix(self) -> str:
        """``/api/v1`` or ``/apis/GROUP/VERSION``."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of the collection, of one object, or of its subresource."""
        out = self.path_prefix
        if self.namespaced and namespace:
            out += f"/namespaces/{_segment(namespace)}"
        out += f"/{self.resource}"
        if name:
            out += f"/{_segment(name)}"
        return f"{out}/{subresource}" if subresource else out

    @property
    def type(self) -> type[Struct]:
        """The typed struct; raises KeyError for a kind without one (a custom resource)."""
        return struct_of(self.group, self.version, self.kind)


def _segment(name: str) -> str:
    """One segment of a path, whatever is in the name: names in specs are other people's, and may lead nowhere else."""
    if "/" in name or name in (".", ".."):
        return name.replace("/", "%2F").replace(".", "%2E")
    return name


@functools.cache
def struct_of(group: str, version: str, kind: str) -> type[Struct]:
    module, cls = INDEX[group, version, kind].split(".")
    struct: type[Struct] = getattr(importlib.import_module(f"navarch.api.types.{module}"), cls)
    return struct


def _kinds() -> tuple[Kind, ...]:
    core, apps, every = ("", "v1"), ("apps", "v1"), ("all",)
    rbac = ("rbac.authorization.k8s.io", "v1")
    network, storage = ("networking.k8s.io", "v1"), ("storage.k8s.io", "v1")
    flow = ("flowcontrol.apiserver.k8s.io", "v1")
    authz, authn = ("authorization.k8s.io", "v1"), ("authentication.k8s.io", "v1")
    admission, extensions = ("admissionregistration.k8s.io", "v1"), ("api-extensions",)
    return (
        Kind(*core, "Namespace", "namespaces", False, ("ns",)),
        Kind(*core, "Node", "nodes", False, ("no",)),
        Kind(*core, "Pod", "pods", True, ("po",), every),
        Kind(*core, "Service", "services", True, ("svc",), every),
        Kind(*core, "Endpoints", "endpoints", True, ("ep",), singular="endpoints"),
        Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        Kind(*core, "ConfigMap", "configmaps", True, ("cm",)),
        Kind(*core, "Secret", "secrets"),
        Kind(*core, "ServiceAccount", "serviceaccounts", True, ("sa",)),
        Kind(*core, "Event", "events", True, ("ev",)),
        Kind("events.k8s.io", "v1", "Event", "events", True, ("ev",)),
        Kind("coordination.k8s.io", "v1", "Lease", "leases"),
        Kind(*core, "PersistentVolume", "persistentvolumes", False, ("pv",)),
        Kind(*core, "PersistentVolumeClaim", "persistentvolumeclaims", True, ("pvc",)),
        Kind(*core, "PodTemplate", "podtemplates"),
        Kind(*core, "ReplicationController", "replicationcontrollers", True, ("rc",), every),
        Kind(*core, "ResourceQuota", "resourcequotas", True, ("quota",)),
        Kind(*core, "LimitRange", "limitranges", True, ("limits",)),
        Kind(*apps, "ReplicaSet", "replicasets", True, ("rs",), every),
        Kind(*apps, "Deployment", "deployments", True, ("deploy",), every),
        Kind(*apps, "StatefulSet", "statefulsets", True, ("sts",), every),
        Kind(*apps, "DaemonSet", "daemonsets", True, ("ds",), every),
        Kind(*apps, "ControllerRevision", "controllerrevisions"),
        Kind("batch", "v1", "Job", "jobs", True, (), every),
        Kind("batch", "v1", "CronJob", "cronjobs", True, ("cj",), every),
        Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True, ("hpa",), every),
        Kind("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True, ("hpa",), every),
        Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True, ("pdb",)),
        Kind(*network, "Ingress", "ingresses", True, ("ing",)),
        Kind(*network, "IngressClass", "ingressclasses", False),
        Kind(*network, "NetworkPolicy", "networkpolicies", True, ("netpol",)),
        Kind(*network, "ServiceCIDR", "servicecidrs", False),
        Kind(*network, "IPAddress", "ipaddresses", False, ("ip",)),
        Kind(*storage, "StorageClass", "storageclasses", False, ("sc",)),
        Kind(*storage, "VolumeAttachment", "volumeattachments", False),
        Kind(*storage, "CSIDriver", "csidrivers", False),
        Kind(*storage, "CSINode", "csinodes", False),
        Kind(*storage, "CSIStorageCapacity", "csistoragecapacities"),
        Kind(*storage, "VolumeAttributesClass", "volumeattributesclasses", False, ("vac",)),
        Kind("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", False),
        Kind(*admission, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", False, (), extensions),
        Kind(*admission, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", False, (), extensions),
        Kind(*admission, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", False, (), extensions),
        Kind(*admission, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", False, (), extensions),
        Kind("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", False, ("csr",)),
        Kind(*flow, "FlowSchema", "flowschemas", False),
        Kind(*flow, "PriorityLevelConfiguration", "prioritylevelconfigurations", False),
        Kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", False, ("pc",)),
        Kind(*rbac, "Role", "roles"),
        Kind(*rbac, "RoleBinding", "rolebindings"),
        Kind(*rbac, "ClusterRole", "clusterroles", False),
        Kind(*rbac, "ClusterRoleBinding", "clusterrolebindings", False),
        Kind(
            "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False,
            ("crd", "crds"), ("api-extensions",),
        ),
        Kind("apiregistration.k8s.io", "v1", "APIService", "apiservices", False, (), ("api-extensions",)),
        Kind(*authz, "SelfSubjectAccessReview", "selfsubjectaccessreviews", False),
        Kind(*authz, "SelfSubjectRulesReview", "selfsubjectrulesreviews", False),
        Kind(*authz, "SubjectAccessReview", "subjectaccessreviews", False),
        Kind(*authz, "LocalSubjectAccessReview", "localsubjectaccessreviews"),
        Kind(*authn, "TokenReview", "tokenreviews", False),
        Kind(*authn, "SelfSubjectReview", "selfsubjectreviews", False),
    )


KINDS = _kinds()
BY_GVK = {(k.group, k.version, k.kind): k for k in KINDS}
BY_RESOURCE = {(k.group, k.version, k.resource): k for k in KINDS}


def kind_of(struct: type[Struct] | Struct) -> Kind:
    """The Kind of a typed struct or of one of its instances. Raises KeyError."""
    gvk = struct._gvk_
    if gvk is None:
        raise KeyError(struct)
    return BY_GVK[gvk]


_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?").fullmatch


def version_order(name: str) -> tuple[int, int, int, str]:
    """A sort key of API versions as discovery lists them: v2, v1, v2beta1, v1alpha1, then all others by name."""
    match = _VERSION(name)
    if match is None:
        return (3, 0, 0, name)
    major, stage, minor = match.groups()
    return ({None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0), "")


def group_version(api_version: str) -> tuple[str, str]:
    """``apps/v1`` -> ("apps", "v1"); ``v1`` -> ("", "v1")."""
    group, _, version = api_version.rpartition("/")
    return group, version


_encoder = msgspec.json.Encoder()


@functools.cache
def decoder(struct: type[Struct]) -> msgspec.json.Decoder[Any]:
    """The JSON decoder of a struct, built once."""
    return msgspec.json.Decoder(struct)


def encode(obj: Struct) -> bytes:
    """JSON of a typed object; fills in apiVersion and kind of a root kind that lacks them."""
    gvk = obj._gvk_
    if gvk is not None and getattr(obj, "kind", None) is None:
        obj.kind = gvk[2]  # type: ignore[attr-defined]
        obj.api_version = f"{gvk[0]}/{gvk[1]}" if gvk[0] else gvk[1]  # type: ignore[attr-defined]
    return _encoder.encode(obj)


def copy(obj: T) -> T:
    """A deep copy, by encoding and decoding (far cheaper than copy.deepcopy)."""
    out: T = decoder(type(obj)).decode(_encoder.encode(obj))
    return out
