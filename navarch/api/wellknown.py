"""Labels, annotations, taints, finalizers and types that Kubernetes gives a meaning to and that several parts look at.

What only one module knows stays there. Listed at https://kubernetes.io/docs/reference/labels-annotations-taints.
"""

from __future__ import annotations

# Nodes: labels
HOSTNAME = "kubernetes.io/hostname"
OS, ARCH = "kubernetes.io/os", "kubernetes.io/arch"
BETA_OS, BETA_ARCH = "beta.kubernetes.io/os", "beta.kubernetes.io/arch"
ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
BETA_ZONE, BETA_REGION = "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region"
INSTANCE_TYPE, BETA_INSTANCE_TYPE = "node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"
NODE_ROLE = "kubernetes.io/role"

# Nodes: taints
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
CRITICAL_PRIORITY = 2_000_000_000  # of system-cluster-critical; pods of this priority or above are critical
MEMORY_PRESSURE = "node.kubernetes.io/memory-pressure"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

# Pods: annotations
DOCKER_CONFIG, DOCKER_CONFIG_JSON = "kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson"  # types of Secrets
MIRROR_POD = "kubernetes.io/config.mirror"
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"

# Any object
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

# Deployments: annotations of their ReplicaSets
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"

# Services
SERVICE_NAME = "kubernetes.io/service-name"  # label of an EndpointSlice
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
ENDPOINTSLICE_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
SERVICE_SHOWN_AS = "kubernetes.io/name"  # label of what `cluster-info` lists
INGRESS_CLASS = "kubernetes.io/ingress.class"
DEFAULT_INGRESS_CLASS = "ingressclass.kubernetes.io/is-default-class"
EXCLUDE_FROM_LOAD_BALANCERS = "node.kubernetes.io/exclude-from-external-load-balancers"  # label of a Node
ANNOUNCED_BY = "navarch.dev/announced-by"  # the node that answers ARP for a Service's load balancer address

# Storage
BETA_STORAGE_CLASS = "volume.beta.kubernetes.io/storage-class"
DEFAULT_STORAGE_CLASS = "storageclass.kubernetes.io/is-default-class"
BETA_DEFAULT_STORAGE_CLASS = "storageclass.beta.kubernetes.io/is-default-class"
PVC_PROTECTION, PV_PROTECTION = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"
VAC_PROTECTION = "kubernetes.io/vac-protection"

# Identity
SERVICE_ACCOUNT_TOKEN, BOOTSTRAP_TOKEN = "kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token"  # Secret types
SERVICE_ACCOUNT_NAME = "kubernetes.io/service-account.name"
RBAC_AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
SIGNER_CLIENT = "kubernetes.io/kube-apiserver-client"
SIGNER_KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
SIGNER_KUBELET_SERVING = "kubernetes.io/kubelet-serving"
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"  # changes a pod template, so that its pods are made anew

# Of IPAddress objects: who looks after one.
IP_FAMILY = "ipaddress.kubernetes.io/ip-family"
IP_MANAGED_BY, IP_ALLOCATOR = "ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io"
# Of Secrets with a service account's token: the day of its last use, and since when it is no longer taken.
LEGACY_TOKEN_LAST_USED = "kubernetes.io/legacy-token-last-used"
LEGACY_TOKEN_INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
