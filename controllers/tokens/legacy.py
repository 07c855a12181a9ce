"""Cleans up Secrets with service account tokens that clusters once made by themselves, and that nobody uses (KEP-2799).

A Secret that its account names in ``secrets``, that no pod mounts and whose token was not used for a year is marked invalid:
the API server takes its token no longer. After another year it is deleted. People may take the mark away.
"""

from __future__ import annotations

from controllers.controller import Context, Controller
from controllers.tokens.accounts import NAME, UID
from navarch.api import wellknown
from navarch.api.errors import Conflict, NotFound
from navarch.api.times import format_time, parse_time
from navarch.api.types import core_v1

Secret = core_v1.Secret
Account = core_v1.ServiceAccount
Pod = core_v1.Pod
PERIOD = 24 * 3600.0  # seconds between two rounds
TRACKING = "kube-system", "kube-apiserver-legacy-service-account-token-tracking"


class LegacyTokenCleaner(Controller):
    """Keys are Secrets, each looked at once a day."""

    name = "legacy-serviceaccount-token-cleaner-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.secrets = context.informers.informer(Secret, field_selector=f"type={wellknown.SERVICE_ACCOUNT_TOKEN}")
        self._informers.append(self.secrets)
        self.accounts = self.informer(Account)
        self.pods = self.informer(Pod)
        self.enqueues(self.secrets)

    async def reconcile(self, key: str) -> float | None:
        secret = self.secrets.get_key(key)
        if secret is None or secret.metadata.deletion_timestamp is not None:
            return None
        since = await self._tracked_since()
        if since is not None and since + self._patience <= self.world.now():
            await self._look(secret)
        return PERIOD

    @property
    def _patience(self) -> float:
        return self.config.legacy_service_account_token_clean_up_period

    async def _tracked_since(self) -> float | None:
        """When API servers began to note which tokens are used; None while nobody knows."""
        try:
            tracking = await self.client[core_v1.ConfigMap].get(TRACKING[1], TRACKING[0])
            return _day((tracking.data or {}).get("since"))
        except NotFound:
            return None

    async def _look(self, secret: Secret) -> None:
        if not self._is_generated(secret) or self._is_mounted(secret):
            return
        now, meta = self.world.now(), secret.metadata
        name, namespace = meta.name or "", meta.namespace
        match verdict(secret, now, self._patience):
            case "mark":
                labels = {wellknown.LEGACY_TOKEN_INVALID_SINCE: format_time(now)[:10]}
                change = {"metadata": {"labels": labels, "resourceVersion": meta.resource_version}}
                await self.client[Secret].patch(name, namespace, change)
            case "delete":
                try:
                    await self.client[Secret].delete(name, namespace, uid=meta.uid, resource_version=meta.resource_version)
                except (NotFound, Conflict):
                    return

    def _is_generated(self, secret: Secret) -> bool:
        """Its account names it, as accounts did whose tokens were made for them."""
        notes = secret.metadata.annotations or {}
        account = self.accounts.get(secret.metadata.namespace, notes.get(NAME) or "")
        if account is None or notes.get(UID) != account.metadata.uid:
            return False
        return any(ref.name == secret.metadata.name for ref in account.secrets or ())

    def _is_mounted(self, secret: Secret) -> bool:
        return any(
            volume.secret is not None and volume.secret.secret_name == secret.metadata.name
            for pod in self.pods.list(secret.metadata.namespace)
            for volume in pod.spec.volumes or ()
        )


def verdict(secret: Secret, now: float, patience: float) -> str:
    """mark or delete, for a token that was not used for ``patience`` seconds, and was marked before as long; "" for others."""
    labels, born = secret.metadata.labels or {}, secret.metadata.creation_timestamp
    used = max(_day(labels.get(wellknown.LEGACY_TOKEN_LAST_USED)) or 0.0, parse_time(born) if born else now)
    if used + patience > now:
        return ""
    marked_at = _day(labels.get(wellknown.LEGACY_TOKEN_INVALID_SINCE))
    if marked_at is None:
        return "mark"
    return "delete" if marked_at + patience <= now else ""


def _day(text: str | None) -> float | None:
    """Unix time of a day such as 2026-12-01; None for anything else."""
    try:
        return parse_time(f"{text}T00:00:00Z")
    except ValueError:
        return None
