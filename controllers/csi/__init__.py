"""The cluster's side of a CSI driver, as one program beside it: provisioner, attacher, resizer and registrar (docs/storage.md).

It must run where the driver's socket is and with rights that a node must not have, so it is neither a controller of the manager
nor a part of the agent, but a sidecar, as Kubernetes has it. Drivers that bring Kubernetes' own sidecars do not need it.
"""
