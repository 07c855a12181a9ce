"""MutatingWebhookConfigurations: webhooks that may change what is written."""

from __future__ import annotations

from apiserver.kinds.admissionregistration.webhooks import GROUP, WebhooksStrategy
from apiserver.kinds.cells import kind


class MutatingWebhookConfigurationStrategy(WebhooksStrategy):
    kind = kind(f"{GROUP}/v1", "MutatingWebhookConfiguration")
    reinvokes = True
