"""Which issuers of JWTs are believed, and who may come without credentials: from the --oidc-* flags, or from an
AuthenticationConfiguration (apiserver.config.k8s.io/v1), which takes their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from apiserver.authn.claims import CLAIMS, USER, Mapped, Mappings, Rule
from apiserver.authn.oidc import Issuer
from apiserver.config import Config

if TYPE_CHECKING:
    from apiserver.cel.engine import Expression

Tree = dict[str, Any]
VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1")
VERIFIED = "claims.email_verified"
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")


@dataclass(frozen=True)
class Anonymous:
    """Whether requests without credentials are let in; with ``paths`` only for these."""

    enabled: bool = True
    paths: tuple[str, ...] = ()

    def allows(self, path: str) -> bool:
        return self.enabled and (not self.paths or path in self.paths)


@dataclass(frozen=True)
class Authentication:
    issuers: tuple[Issuer, ...] = ()
    anonymous: Anonymous = Anonymous()


def authentication(config: Config) -> Authentication:
    """Raises OSError, ValueError with all that is wrong."""
    anonymous = Anonymous(config.anonymous_auth)
    if not config.authentication_config:
        return Authentication(from_flags(config), anonymous)
    if config.oidc_issuer_url or config.oidc_client_id:
        raise ValueError("authentication-config and oidc-* flags cannot be used together")
    path = config.authentication_config
    try:
        tree = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from None
    configuration, problems = parse(tree if isinstance(tree, dict) else {}, anonymous)
    if problems:
        raise ValueError(f"{path}: " + "; ".join(problems))
    return configuration


def from_flags(config: Config) -> tuple[Issuer, ...]:
    """Raises OSError, ValueError."""
    if not config.oidc_issuer_url and not config.oidc_client_id:
        return ()
    if not config.oidc_issuer_url or not config.oidc_client_id:
        raise ValueError("oidc-issuer-url and oidc-client-id must be specified together")
    if wrong := _url(config.oidc_issuer_url):
        raise ValueError(f"oidc-issuer-url: {wrong}")
    if unknown := [a for a in config.oidc_signing_algs if a not in ALGORITHMS]:
        raise ValueError(f"oidc-signing-algs: unsupported {unknown[0]!r}; supported are {', '.join(ALGORITHMS)}")
    prefix = config.oidc_username_prefix
    if not prefix and config.oidc_username_claim != "email":
        prefix = config.oidc_issuer_url + "#"
    rules = []
    for text in config.oidc_required_claim:
        claim, equals, value = text.partition("=")
        if not equals or not claim:
            raise ValueError(f"oidc-required-claim {text!r}: say KEY=VALUE")
        rules.append(Rule(claim, value))
    mappings = Mappings(
        Mapped(config.oidc_username_claim, "" if prefix == "-" else prefix),
        Mapped(config.oidc_groups_claim, config.oidc_groups_prefix),
        claim_rules=tuple(rules),
    )
    ca = Path(config.oidc_ca_file).read_text() if config.oidc_ca_file else ""
    return (Issuer(config.oidc_issuer_url, (config.oidc_client_id,), mappings, "", ca, config.oidc_signing_algs),)


def parse(tree: Tree, anonymous: Anonymous) -> tuple[Authentication, list[str]]:
    """The configuration, and what is wrong with it."""
    problems: list[str] = []
    if tree.get("apiVersion") not in VERSIONS or tree.get("kind") != "AuthenticationConfiguration":
        problems.append(f"apiVersion and kind must be {VERSIONS[0]} and AuthenticationConfiguration")
    _check_fields(tree, ("apiVersion", "kind", "jwt", "anonymous"), "", problems)
    issuers: list[Issuer] = []
    for i, one in enumerate(tree.get("jwt") or ()):
        issuer = _issuer(one, f"jwt[{i}]", problems)
        if any(issuer.url == other.url for other in issuers):
            problems.append(f"jwt[{i}].issuer.url: Duplicate value: {issuer.url!r}")
        issuers.append(issuer)
    if (written := tree.get("anonymous")) is not None:
        _check_fields(written, ("enabled", "conditions"), "anonymous.", problems)
        conditions = written.get("conditions") or ()
        if conditions and not written.get("enabled"):
            problems.append("anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined")
        anonymous = Anonymous(bool(written.get("enabled")), tuple(c.get("path") or "" for c in conditions))
    return Authentication(tuple(issuers), anonymous), problems


def _issuer(one: Tree, at: str, problems: list[str]) -> Issuer:
    fields = ("issuer", "claimValidationRules", "claimMappings", "userValidationRules")
    _check_fields(one, fields, f"{at}.", problems)
    issuer = one.get("issuer") or {}
    issuer_fields = ("url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy")
    _check_fields(issuer, issuer_fields, f"{at}.issuer.", problems)
    url, discovery = issuer.get("url") or "", issuer.get("discoveryURL") or ""
    for name, value in (("url", url), ("discoveryURL", discovery)):
        if (value or name == "url") and (wrong := _url(value)):
            problems.append(f"{at}.issuer.{name}: Invalid value: {value!r}: {wrong}")
    if discovery and discovery.rstrip("/") == url.rstrip("/"):
        problems.append(f"{at}.issuer.discoveryURL: Invalid value: discoveryURL must be different from URL")
    audiences = tuple(issuer.get("audiences") or ())
    if not audiences:
        problems.append(f"{at}.issuer.audiences: Required value: at least one {at}.issuer.audiences is required")
    policy = issuer.get("audienceMatchPolicy") or ""
    if policy not in ("", "MatchAny") or (len(audiences) > 1 and not policy):
        text = "must be MatchAny for multiple audiences" if len(audiences) > 1 else "must be empty or MatchAny"
        problems.append(f"{at}.issuer.audienceMatchPolicy: Invalid value: {policy!r}: {text}")
    ca = issuer.get("certificateAuthority") or ""
    claim_rules = tuple(
        _rule(rule, f"{at}.claimValidationRules[{j}]", CLAIMS, problems)
        for j, rule in enumerate(one.get("claimValidationRules") or ())
    )
    user_rules = tuple(
        _rule(rule, f"{at}.userValidationRules[{j}]", USER, problems)
        for j, rule in enumerate(one.get("userValidationRules") or ())
    )
    mappings = _mappings(one.get("claimMappings") or {}, f"{at}.claimMappings", claim_rules, user_rules, problems)
    return Issuer(url, audiences, mappings, discovery, ca, ALGORITHMS)


def _mappings(
    tree: Tree, at: str, claim_rules: tuple[Rule, ...], user_rules: tuple[Rule, ...], problems: list[str]
) -> Mappings:
    _check_fields(tree, ("username", "groups", "uid", "extra"), f"{at}.", problems)
    username = _mapped(tree.get("username") or {}, f"{at}.username", problems)
    if not username:
        problems.append(f"{at}.username: Required value: claim or expression is required")
    groups = _mapped(tree.get("groups") or {}, f"{at}.groups", problems)
    uid = _mapped(tree.get("uid") or {}, f"{at}.uid", problems, prefixed=False)
    extra = []
    for i, one in enumerate(tree.get("extra") or ()):
        where = f"{at}.extra[{i}]"
        _check_fields(one, ("key", "valueExpression"), f"{where}.", problems)
        key = one.get("key") or ""
        if not key or key != key.lower() or "/" not in key or key.partition("/")[0].endswith(("kubernetes.io", "k8s.io")):
            problems.append(f"{where}.key: Invalid value: {key!r}: must be a lower-case path of a domain of your own")
        expression = _compiled(one.get("valueExpression") or "", f"{where}.valueExpression", CLAIMS, problems)
        if expression is not None:
            extra.append((key, expression))
    sources = [e.source for _, e in extra] + [r.expression.source for r in claim_rules if r.expression is not None]
    source = username.expression.source if username.expression is not None else ""
    if "claims.email" in source.replace(VERIFIED, "") and not any(VERIFIED in s for s in [source, *sources]):
        problems.append(f"{at}.username.expression: Invalid value: an expression that uses claims.email must look at "
                        f"{VERIFIED}, there or in a validation rule")  # fmt: skip
    return Mappings(username, groups, uid, tuple(extra), claim_rules, user_rules)


def _mapped(tree: Tree, at: str, problems: list[str], prefixed: bool = True) -> Mapped:
    _check_fields(tree, ("claim", "expression", "prefix") if prefixed else ("claim", "expression"), f"{at}.", problems)
    claim, source, prefix = tree.get("claim") or "", tree.get("expression") or "", tree.get("prefix")
    if claim and source:
        problems.append(f"{at}: Invalid value: claim and expression can't both be set")
    if source and prefix is not None:
        problems.append(f"{at}.prefix: Invalid value: prefix can't be set when expression is set")
    if claim and prefixed and prefix is None:
        problems.append(f"{at}.prefix: Required value: prefix is required when claim is set. It can be set to an empty string")
    return Mapped(claim, prefix or "", _compiled(source, f"{at}.expression", CLAIMS, problems) if source else None)


def _rule(tree: Tree, at: str, variables: tuple[tuple[str, str], ...], problems: list[str]) -> Rule:
    of_claims = variables is CLAIMS
    fields = ("expression", "message")
    _check_fields(tree, ("claim", "requiredValue", *fields) if of_claims else fields, f"{at}.", problems)
    claim, source = tree.get("claim") or "", tree.get("expression") or ""
    if bool(claim) == bool(source):
        rule_text = "exactly one of claim and expression" if of_claims else "expression"
        problems.append(f"{at}: Invalid value: {rule_text} is required")
    compiled = _compiled(source, f"{at}.expression", variables, problems, "bool") if source else None
    return Rule(claim, tree.get("requiredValue") or "", compiled, tree.get("message") or "")


def _compiled(
    source: str, at: str, variables: tuple[tuple[str, str], ...], problems: list[str], returns: str = ""
) -> Expression | None:
    from apiserver.cel.engine import CelError, compile_cel

    if not source:
        problems.append(f"{at}: Required value")
        return None
    try:
        expression = compile_cel(source, variables)
    except CelError as error:
        problems.append(f"{at}: Invalid value: {source!r}: compilation failed: {error}")
        return None
    if returns and expression.returns not in (returns, "dyn"):
        problems.append(f"{at}: Invalid value: {source!r}: must evaluate to {returns}")
    return expression


def _url(text: str) -> str:
    """Validates an issuer's URL. Returns a message, empty when it is valid."""
    parts = urlsplit(text)
    if not text:
        return "URL is required"
    if parts.scheme != "https":
        return "URL scheme must be https"
    if parts.username or parts.password:
        return "URL must not contain a username or password"
    if parts.query or parts.fragment:
        return "URL must not contain a query or a fragment"
    return ""


def _check_fields(tree: Any, fields: Sequence[str], at: str, problems: list[str]) -> None:
    problems += [f'unknown field "{at}{name}"' for name in tree if name not in fields]
