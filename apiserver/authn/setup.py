"""Authentication as the flags want it: the kinds of tokens in upstream's order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from apiserver.authn.accounts import LAST_USED, AccountTokens
from apiserver.authn.authenticator import Authenticator
from apiserver.authn.bootstraptokens import BootstrapTokens
from apiserver.authn.configuration import authentication
from apiserver.authn.identity import TokenAuthenticator
from apiserver.authn.oidc import OIDC, http_fetch
from apiserver.authn.tokenfile import TokenFile
from apiserver.authn.tokens import TokenIssuer, new_key
from apiserver.cache.cache import Cache
from apiserver.config import Config
from apiserver.lifecycle import Lifecycle
from apiserver.request import Context, WriteOptions, own_context
from apiserver.storage.store import StoreUnavailable
from navarch.api.durations import parse_duration
from navarch.api.errors import StatusError
from navarch.api.times import format_time
from navarch.world import World

log = logging.getLogger(__name__)
Tree = dict[str, Any]


def token_issuer(world: World, config: Config) -> TokenIssuer:
    """Raises OSError, ValueError. Without a key, tokens are good for the life of the process."""
    files = [f for f in (config.service_account_signing_key_file, *config.service_account_key_file) if f]
    longest = parse_duration(config.service_account_max_token_expiration)
    if longest and not 3600 <= longest <= 1 << 32:
        raise ValueError("service-account-max-token-expiration must be between 1 hour and 2^32 seconds")
    return TokenIssuer(
        world, [Path(file).read_bytes() for file in files] or [new_key()], config.service_account_issuer,
        config.api_audiences, int(longest), config.service_account_extend_token_expiration,
    )  # fmt: skip


def authenticator(
    config: Config, world: World, cache: Cache, issuer: TokenIssuer, last_used: LastUsed, lifecycle: Lifecycle
) -> tuple[Authenticator, Callable[[str], bool]]:
    """The authenticator of a server, and which paths may be asked for without credentials. Raises OSError, ValueError."""
    settings = authentication(config)
    kinds: list[TokenAuthenticator] = []
    if config.token_auth_file:
        kinds.append(TokenFile.load(Path(config.token_auth_file)))
    lifecycle.background.append(last_used.run)
    kinds.append(AccountTokens(world, cache, issuer, last_used.note))
    if config.enable_bootstrap_token_auth:
        kinds.append(BootstrapTokens(world, cache))
    for one in settings.issuers:
        if one.url in issuer.issuers:
            raise ValueError(f"{one.url} is the issuer of service-account tokens, and cannot be another one, too")
        oidc = OIDC(world, one, http_fetch(one.ca))
        kinds.append(oidc)
        lifecycle.background.append(oidc.keys.run)
    return Authenticator(world, issuer.audiences, kinds), settings.anonymous.allows


class Secrets(Protocol):
    """The verbs of secrets, as far as they are needed here."""

    async def change(
        self, context: Context, namespace: str, name: str, change: Callable[[Tree], Tree], options: WriteOptions
    ) -> Any: ...


class LastUsed:
    """Writes into a Secret with a token on which day that token was last used; one note a day and Secret."""

    def __init__(self, world: World, secrets: Secrets) -> None:
        self.world, self.secrets = world, secrets
        self._noted: dict[tuple[str, str], str] = {}
        self._todo: dict[tuple[str, str], str] = {}
        self._some = asyncio.Event()

    def note(self, namespace: str, name: str) -> None:
        day = format_time(self.world.now())[:10]
        if self._noted.get((namespace, name)) != day:
            self._noted[namespace, name] = self._todo[namespace, name] = day
            self._some.set()

    async def run(self) -> None:
        """Until cancelled."""
        options = WriteOptions(field_manager="kube-apiserver")
        while True:
            await self._some.wait()
            self._some.clear()
            todo, self._todo = self._todo, {}
            for (namespace, name), day in todo.items():

                def change(old: dict[str, Any], day: str = day) -> dict[str, Any]:
                    old["metadata"]["labels"] = (old["metadata"].get("labels") or {}) | {LAST_USED: day}
                    return old

                try:
                    await self.secrets.change(own_context(self.world), namespace, name, change, options)
                except (StatusError, StoreUnavailable) as error:
                    log.info("cannot note that the token of %s/%s was used: %s", namespace, name, error)
                    self._noted.pop((namespace, name), None)
