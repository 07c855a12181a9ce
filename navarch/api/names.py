"""Checks of names. Every check returns a list of messages, empty when the text is fine.

The messages are part of the interface: clients and their users know them from Kubernetes.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable

from navarch.api.addresses import is_address

Check = Callable[[str], list[str]]

LABEL_LENGTH = 63
SUBDOMAIN_LENGTH = 253

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_SUBDOMAIN = _LABEL + "(\\." + _LABEL + ")*"
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
_WILDCARD_TEXT = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
)
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character"
)
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_QUALIFIED_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_IDENTIFIER_TEXT = (
    "a valid C identifier must start with alphabetic character or '_', "
    "followed by a string of alphanumeric characters or '_'"
)
_ENV_TEXT = "a valid environment variable name must consist only of printable ASCII characters other than '='"
_KEY_TEXT = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"

EMPTY = "must be non-empty"


def max_length(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def in_range(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


def regex_message(text: str, pattern: str, *examples: str) -> str:
    """``text (e.g. 'a',  or 'b', regex used for validation is 'pattern')``; the odd comma is upstream's."""
    if not examples:
        return f"{text} (regex used for validation is '{pattern}')"
    listed = " or ".join(f"'{e}', " for e in examples)
    return f"{text} (e.g. {listed}regex used for validation is '{pattern}')"


def _check(pattern: str, text: str, *examples: str, limit: int = 0) -> Check:
    match = re.compile(pattern, re.ASCII).fullmatch
    message = regex_message(text, pattern, *examples)

    @functools.lru_cache(maxsize=4096)
    def right(value: str) -> bool:
        return match(value) is not None and not (limit and len(value.encode()) > limit)

    def check(value: str) -> list[str]:
        if len(value) <= SUBDOMAIN_LENGTH and right(value):  # the same names come again and again
            return []
        out = []
        if limit and len(value.encode()) > limit:
            out.append(max_length(limit))
        if not match(value):
            out.append(message)
        return out

    return check


dns_label = _check(_LABEL, _LABEL_TEXT, "my-name", "123-abc", limit=LABEL_LENGTH)
"""RFC 1123 label: names of namespaces, containers, volumes."""
dns_subdomain = _check(_SUBDOMAIN, _SUBDOMAIN_TEXT, "example.com", limit=SUBDOMAIN_LENGTH)
"""RFC 1123 subdomain: names of most objects."""
dns1035 = _check(_LABEL_1035, _LABEL_1035_TEXT, "my-name", "abc-123", limit=LABEL_LENGTH)
"""RFC 1035 label: names of services."""
wildcard_subdomain = _check("\\*\\." + _SUBDOMAIN, _WILDCARD_TEXT, "*.example.com", limit=SUBDOMAIN_LENGTH)
label_value = _check(f"({_QUALIFIED})?", _VALUE_TEXT, "MyValue", "my_value", "12345", limit=LABEL_LENGTH)
c_identifier = _check("[A-Za-z_][A-Za-z0-9_]*", _IDENTIFIER_TEXT, "my_name", "MY_NAME", "MyName")
http_header_name = _check(
    "[-A-Za-z0-9]+", "a valid HTTP header must consist of alphanumeric characters or '-'", "X-Header-Name"
)
percent = _check("[0-9]+%", "a valid percent string must be a numeric string followed by an ending '%'", "1%", "93%")
_name_part = _check(_QUALIFIED, _QUALIFIED_TEXT, "MyName", "my.name", "123-abc", limit=LABEL_LENGTH)
_config_key = _check("[-._a-zA-Z0-9]+", _KEY_TEXT, "key.name", "KEY_NAME", "key-name", limit=SUBDOMAIN_LENGTH)
_port_characters = re.compile("[-a-z0-9]+").fullmatch


def qualified_name(value: str) -> list[str]:
    """Label keys, annotation keys, resource names: ``name`` or ``subdomain/name``."""
    return [] if len(value) <= SUBDOMAIN_LENGTH and _is_qualified(value) else _qualified_problems(value)


@functools.lru_cache(maxsize=4096)
def _is_qualified(value: str) -> bool:
    return not _qualified_problems(value)


def _qualified_problems(value: str) -> list[str]:
    prefix, slash, name = value.partition("/")
    if "/" in name:
        text = regex_message("a qualified name " + _QUALIFIED_TEXT, _QUALIFIED, "MyName", "my.name", "123-abc")
        return [text + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    out: list[str] = []
    if slash:
        out = [f"prefix part {m}" for m in dns_subdomain(prefix)] if prefix else ["prefix part " + EMPTY]
    else:
        name = prefix
    if not name:
        out.append("name part " + EMPTY)
    return out + [f"name part {m}" for m in _name_part(name)]


def env_name(value: str) -> list[str]:
    """Names of environment variables: printable ASCII without "=" (relaxed rule, GA in 1.34)."""
    if not value:
        return ["environment variable name " + EMPTY]
    return [_ENV_TEXT] if any(not " " <= c <= "~" or c == "=" for c in value) else []


def config_key(value: str) -> list[str]:
    """Keys of ConfigMaps and Secrets: they become file names."""
    out = _config_key(value)
    if value in (".", ".."):
        out.append(f"must not be '{value}'")
    elif value.startswith(".."):
        out.append("must not start with '..'")
    return out


def port_name(value: str) -> list[str]:
    """RFC 6335 service names, as container ports have them."""
    out = []
    if len(value) > 15:
        out.append(max_length(15))
    if not _port_characters(value):
        out.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        out.append("must contain at least one letter (a-z)")
    if "--" in value:
        out.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        out.append("must not begin or end with a hyphen")
    return out


def port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else [in_range(1, 65535)]


def path_segment(value: str) -> list[str]:
    """Names that only have to fit into a URL path: RBAC roles and bindings."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{c}'" for c in "/%" if c in value]


def ip_address(value: str) -> list[str]:
    if not is_address(value):
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return []


def cidr(value: str) -> list[str]:
    try:
        if "/" in value:
            ipaddress.ip_network(value, strict=False)
            return []
    except ValueError:
        pass
    return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]
