"""DefaultStorageClass: a claim without a class gets the one that is marked as the default."""

from __future__ import annotations

from apiserver.admission.plugins.defaultclass import DefaultClass
from navarch.api import wellknown

STORAGE_MARKS = (
    wellknown.DEFAULT_STORAGE_CLASS,
    wellknown.BETA_DEFAULT_STORAGE_CLASS,
)


class DefaultStorageClass(DefaultClass):
    name = "DefaultStorageClass"
    resource = "persistentvolumeclaims"
    prefix = "/registry/storageclasses/"
    marks = STORAGE_MARKS
    field = "storageClassName"
    annotation = wellknown.BETA_STORAGE_CLASS
