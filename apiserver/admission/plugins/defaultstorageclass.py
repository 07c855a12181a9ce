"""DefaultStorageClass: a claim without a class gets the one that is marked as the default."""

from __future__ import annotations

from apiserver.admission.plugins.defaultclass import DefaultClass

STORAGE_MARKS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


class DefaultStorageClass(DefaultClass):
    name = "DefaultStorageClass"
    resource = "persistentvolumeclaims"
    prefix = "/registry/storageclasses/"
    marks = STORAGE_MARKS
    field = "storageClassName"
    annotation = "volume.beta.kubernetes.io/storage-class"
