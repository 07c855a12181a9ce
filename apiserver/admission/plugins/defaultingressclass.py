"""DefaultIngressClass: an Ingress without a class gets the one that is marked as the default."""

from __future__ import annotations

from apiserver.admission.plugins.defaultclass import DefaultClass
from navarch.api import wellknown

INGRESS_MARKS = (wellknown.DEFAULT_INGRESS_CLASS,)


class DefaultIngressClass(DefaultClass):
    name = "DefaultIngressClass"
    group = "networking.k8s.io"
    resource = "ingresses"
    prefix = "/registry/ingressclasses/"
    marks = INGRESS_MARKS
    field = "ingressClassName"
    annotation = wellknown.INGRESS_CLASS
