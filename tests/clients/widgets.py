"""A custom resource for the clients to work with."""

from __future__ import annotations

from tests.clients.conftest import Kubectl

GROUP = "clients.example.com"
DEFINITION = f"""
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: widgets.{GROUP}}}
spec:
  group: {GROUP}
  scope: Namespaced
  names: {{plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {{}}
      scale: {{specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns: [{{name: Size, type: integer, jsonPath: .spec.size}}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What a widget shall be.
            properties: {{size: {{type: integer, minimum: 0, default: 1}}, colour: {{type: string}}}}
          status: {{type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


class Widgets:
    """The definition, established."""

    def __init__(self, kubectl: Kubectl) -> None:
        kubectl("apply", "-f", "-", stdin=DEFINITION)
        kubectl("wait", "--for=condition=Established", f"crd/widgets.{GROUP}", "--timeout=20s")
