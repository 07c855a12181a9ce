"""ValidatingWebhookConfigurations: webhooks that may refuse what is written."""

from __future__ import annotations

from apiserver.kinds.admissionregistration.webhooks import GROUP, WebhooksStrategy
from apiserver.kinds.cells import kind


class ValidatingWebhookConfigurationStrategy(WebhooksStrategy):
    kind = kind(f"{GROUP}/v1", "ValidatingWebhookConfiguration")
