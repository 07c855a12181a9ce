"""A registry's answer 401: the header WWW-Authenticate (RFC 9110, 11.6.1) and tokens of the distribution API. Pure."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)(?:\s+|$|(?=,))")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
TOKEN_SECONDS = 60.0  # how long a token is good for if its issuer does not say (the distribution API's rule)


@dataclass(frozen=True)
class Challenge:
    """``scheme`` is lower case: bearer, basic."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse(header: str) -> list[Challenge]:
    """The challenges of a header, in order; what cannot be read ends the list."""
    challenges: list[Challenge] = []
    at = 0
    while scheme := _SCHEME.match(header, at):
        at = scheme.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, at):
            name, text, word = parameter.groups()
            parameters[name.lower()] = re.sub(r"\\(.)", r"\1", text) if text is not None else word
            at = parameter.end()
        challenges.append(Challenge(scheme[1].lower(), parameters))
        comma = re.compile(r"\s*,").match(header, at)
        if comma is None:
            break
        at = comma.end()
    return challenges


def choose(header: str) -> Challenge | None:
    """The challenge that we can answer: bearer before basic."""
    by_scheme = {c.scheme: c for c in reversed(parse(header)) if c.scheme in ("bearer", "basic")}
    return by_scheme.get("bearer") or by_scheme.get("basic")


def token_url(challenge: Challenge, scope: str) -> str:
    """Where the token is had. Raises ValueError if the challenge does not say."""
    realm = challenge.parameters.get("realm", "")
    parts = urllib.parse.urlsplit(realm)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f'the registry names no place for tokens (realm "{realm}")')
    query = urllib.parse.parse_qsl(parts.query)
    if service := challenge.parameters.get("service"):
        query.append(("service", service))
    query.append(("scope", challenge.parameters.get("scope") or scope))
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query)))


def token_of(answer: Any) -> tuple[str, float]:
    """The token in an issuer's answer, and the seconds for which it is good. Raises ValueError."""
    fields = answer if isinstance(answer, dict) else {}
    token = fields.get("token") or fields.get("access_token")
    if not isinstance(token, str) or not token or any(c in token for c in "\r\n"):
        raise ValueError("the issuer of tokens gave none")
    seconds = fields.get("expires_in")
    if isinstance(seconds, int | float) and seconds > 0:
        return token, float(seconds)
    return token, TOKEN_SECONDS
