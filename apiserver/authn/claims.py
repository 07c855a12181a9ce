"""From the claims of a verified JWT to a user, by the mappings and rules of an AuthenticationConfiguration. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from apiserver.authn.tokens import InvalidToken
from apiserver.request import User

if TYPE_CHECKING:
    from apiserver.cel.engine import Expression

Claims = Mapping[str, Any]
CLAIMS = (("claims", "map(dyn)"),)
USER = (("user", "map(dyn)"),)


class Mapped(NamedTuple):
    """Where a value comes from: a claim and what is put before it, or an expression over ``claims``."""

    claim: str = ""
    prefix: str = ""
    expression: Expression | None = None

    def __bool__(self) -> bool:
        return bool(self.claim or self.expression)


class Rule(NamedTuple):
    """``claim`` must have the value; or the expression must be true."""

    claim: str = ""
    value: str = ""
    expression: Expression | None = None
    message: str = ""


NOTHING = Mapped()


@dataclass(frozen=True)
class Mappings:
    username: Mapped
    groups: Mapped = NOTHING
    uid: Mapped = NOTHING
    extra: tuple[tuple[str, Expression], ...] = ()
    claim_rules: tuple[Rule, ...] = ()
    user_rules: tuple[Rule, ...] = ()

    def user(self, claims: Claims) -> User:
        """Raises InvalidToken."""
        for rule in self.claim_rules:
            _check_claim(rule, claims)
        name = self._username(claims)
        groups = tuple(self.groups.prefix + g for g in _texts(self.groups, claims, "groups"))
        uid = _text(self.uid, claims, "uid") if self.uid else ""
        extra = {}
        for key, expression in self.extra:
            values = _list(_evaluate(expression, {"claims": claims}), f"extra claim {key!r}")
            if values:
                extra[key] = values
        user = User(name, groups, uid, extra)
        shown = {"username": name, "uid": uid, "groups": list(groups), "extra": extra}
        for rule in self.user_rules:
            assert rule.expression is not None
            if _evaluate(rule.expression, {"user": shown}) is not True:
                raise InvalidToken(f"oidc: error evaluating user info validation rule: {_why(rule)}")
        return user

    def _username(self, claims: Claims) -> str:
        name = _text(self.username, claims, "username")
        # A claim that is named email is only believed once it was verified; expressions ask for it themselves.
        if self.username.claim == "email" and claims.get("email_verified", True) is not True:
            raise InvalidToken("oidc: email not verified")
        if not name:
            raise InvalidToken("oidc: username claim is empty")
        return self.username.prefix + name


def _check_claim(rule: Rule, claims: Claims) -> None:
    if rule.expression is not None:
        if _evaluate(rule.expression, {"claims": claims}) is not True:
            raise InvalidToken(f"oidc: error evaluating claim validation expression: {_why(rule)}")
        return
    if rule.claim not in claims:
        raise InvalidToken(f"oidc: required claim {rule.claim} not present in ID token")
    if claims[rule.claim] != rule.value:
        difference = f"Got = {claims[rule.claim]}, want = {rule.value}"
        raise InvalidToken(f"oidc: required claim {rule.claim} value does not match. {difference}")


def _why(rule: Rule) -> str:
    assert rule.expression is not None
    return rule.message or f"expression '{rule.expression.source}' resulted in false"


def _text(mapped: Mapped, claims: Claims, what: str) -> str:
    if mapped.expression is not None:
        text = _evaluate(mapped.expression, {"claims": claims})
    elif mapped.claim not in claims:
        raise InvalidToken(f'oidc: parse {what} claims "{mapped.claim}": claim not present')
    else:
        text = claims[mapped.claim]
    if not isinstance(text, str):
        raise InvalidToken(f"oidc: the {what} of a token must be a string")
    return text


def _texts(mapped: Mapped, claims: Claims, what: str) -> list[str]:
    if mapped.expression is not None:
        return _list(_evaluate(mapped.expression, {"claims": claims}), what)
    return _list(claims.get(mapped.claim), f'{what} claim "{mapped.claim}"') if mapped.claim else []


def _list(value: Any, what: str) -> list[str]:
    """One string, or several; nothing is nothing."""
    if value is None or value == "":
        return []
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise InvalidToken(f"oidc: {what} must be a string or a list of strings")
    return [one for one in listed if one]


def _evaluate(expression: Expression, variables: Mapping[str, Any]) -> Any:
    from apiserver.cel.engine import CelError

    try:
        return expression.evaluate(variables)
    except CelError as error:
        raise InvalidToken(f"oidc: error evaluating expression '{expression.source}': {error}") from None
