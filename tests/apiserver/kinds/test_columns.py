"""The columns of ``kubectl get`` by name, for every kind, as Kubernetes 1.34 prints them (``*``: only with -o wide)."""

from __future__ import annotations

from tests.apiserver.kinds.support import CATALOG

WORKLOAD = "Containers*, Images*, Selector*"
COLUMNS = {
    "configmaps": "Name, Data, Age",
    "endpoints": "Name, Endpoints, Age",
    "events": "Last Seen, Type, Reason, Object, Subobject*, Source*, Message, First Seen*, Count*, Name*",
    "limitranges": "Name, Created At",
    "namespaces": "Name, Status, Age",
    "nodes": "Name, Status, Roles, Age, Version, Internal-IP*, External-IP*, OS-Image*, Kernel-Version*, Container-Runtime*",
    "persistentvolumeclaims": "Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age, "
    "VolumeMode*",
    "persistentvolumes": "Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, "
    "Reason, Age, VolumeMode*",
    "pods": "Name, Ready, Status, Restarts, Age, IP*, Node*, Nominated Node*, Readiness Gates*",
    "podtemplates": "Name, Containers, Images, Pod Labels",
    "replicationcontrollers": f"Name, Desired, Current, Ready, Age, {WORKLOAD}",
    "resourcequotas": "Name, Request, Limit, Age",
    "secrets": "Name, Type, Data, Age",
    "serviceaccounts": "Name, Secrets, Age",
    "services": "Name, Type, Cluster-IP, External-IP, Port(s), Age, Selector*",
    "apiservices": "Name, Service, Available, Age",
    "controllerrevisions": "Name, Controller, Revision, Age",
    "daemonsets": f"Name, Desired, Current, Ready, Up-to-date, Available, Node Selector, Age, {WORKLOAD}",
    "deployments": f"Name, Ready, Up-to-date, Available, Age, {WORKLOAD}",
    "replicasets": f"Name, Desired, Current, Ready, Age, {WORKLOAD}",
    "statefulsets": "Name, Ready, Age, Containers*, Images*",
    "horizontalpodautoscalers": "Name, Reference, Targets, MinPods, MaxPods, Replicas, Age",
    "cronjobs": f"Name, Schedule, Timezone, Suspend, Active, Last Schedule, Age, {WORKLOAD}",
    "jobs": f"Name, Status, Completions, Duration, Age, {WORKLOAD}",
    "certificatesigningrequests": "Name, Age, SignerName, Requestor, RequestedDuration, Condition",
    "ingressclasses": "Name, Controller, Parameters, Age",
    "ingresses": "Name, Class, Hosts, Address, Ports, Age",
    "ipaddresses": "Name, ParentRef",
    "networkpolicies": "Name, Pod-Selector, Age",
    "servicecidrs": "Name, CIDRs, Age",
    "poddisruptionbudgets": "Name, Min Available, Max Unavailable, Allowed Disruptions, Age",
    "clusterrolebindings": "Name, Role, Age, Users*, Groups*, ServiceAccounts*",
    "clusterroles": "Name, Created At",
    "rolebindings": "Name, Role, Age, Users*, Groups*, ServiceAccounts*",
    "roles": "Name, Created At",
    "csidrivers": "Name, AttachRequired, PodInfoOnMount, StorageCapacity, TokenRequests, RequiresRepublish, Modes, Age",
    "csinodes": "Name, Drivers, Age",
    "csistoragecapacities": "Name, StorageClassName, Capacity",
    "storageclasses": "Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age",
    "volumeattachments": "Name, Attacher, PV, Node, Attached, Age",
    "volumeattributesclasses": "Name, DriverName, Age",
    "mutatingwebhookconfigurations": "Name, Webhooks, Age",
    "validatingadmissionpolicies": "Name, Validations, ParamKind, Age",
    "validatingadmissionpolicybindings": "Name, PolicyName, ParamRef, Age",
    "validatingwebhookconfigurations": "Name, Webhooks, Age",
    "customresourcedefinitions": "Name, Created At",
    "priorityclasses": "Name, Value, Global-Default, Age, PreemptionPolicy",
    "leases": "Name, Holder, Age",
    "runtimeclasses": "Name, Handler, Age",
    "endpointslices": "Name, AddressType, Ports, Endpoints, Age",
    "flowschemas": "Name, PriorityLevel, MatchingPrecedence, DistinguisherMethod, Age, MissingPL",
    "prioritylevelconfigurations": "Name, Type, NominalConcurrencyShares, Queues, HandSize, QueueLengthLimit, Age",
}


def test_every_kind_has_the_columns_of_kubernetes() -> None:
    columns = {
        rules.kind.resource: ", ".join(c.name + ("*" if c.priority else "") for c in rules.columns)
        for rules in CATALOG.values()
    }
    missing = sorted(columns.keys() - COLUMNS.keys())
    assert not missing, f"write the columns of kubectl get into COLUMNS in {__file__} for {missing}"
    assert columns == COLUMNS
