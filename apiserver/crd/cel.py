"""CEL as Kubernetes has it: the environments that expressions are compiled in, with Kubernetes' own functions.

The engine is cel-cpp (package cel-expr-python), loaded when the first expression comes. What Kubernetes has as types of
their own (quantities, addresses, URLs) are maps of texts here: the same functions take them.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from apiserver.crd.patterns import PatternError
from navarch.api import quantity
from navarch.api.quantity import parse


class CelError(Exception):
    """An expression that does not compile, or does not evaluate; the message is the engine's."""


class Expression:
    """A compiled expression. ``returns``: the name of the type that it gives, as far as that is known."""

    def __init__(self, source: str, compiled: Any) -> None:
        self.source = source
        self._compiled = compiled
        self.returns: str = compiled.return_type().name().lower()

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """The value of the expression. Raises CelError."""
        try:
            found = self._compiled.eval(data=variables)
        except RuntimeError as error:
            # The engine counts the turns of loops: no rule can take for ever.
            text = "actual cost limit exceeded" if "budget" in str(error) else _reason(str(error))
            raise CelError(text) from None
        if found.type().name() == _error_name():
            raise CelError(_reason(str(found.value())))
        return found.plain_value()


@functools.cache
def _error_name() -> str:
    from cel_expr_python import cel

    name: str = cel.Type.ERROR.name()
    return name


def _reason(text: str) -> str:
    """The engine's words for an error as Kubernetes' engine has them."""
    text = text.partition(": ")[2] or text
    if key := re.match(r'Key not found in map : "?(.*?)"?$', text):
        return f"no such key: {key[1]}"
    if text.startswith("No matching overloads found"):
        return "no such overload" + text.partition("found")[2].replace(" : ", ": ")
    if "divide by zero" in text or "division by zero" in text:
        return "division by zero"
    if "index" in text.lower() and "bound" in text.lower():
        return "index out of bounds" + (": " + text.rpartition("=")[2] if "=" in text else "")
    return text


@functools.lru_cache(maxsize=64)
def environment(variables: tuple[tuple[str, str], ...]) -> Any:
    """The environment with these variables: name and type, in CEL's words (``map(string, dyn)``)."""
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_bindings, ext_encoders, ext_math, ext_optional, ext_strings

    extensions = [
        ext_strings.ExtStrings(), ext_optional.ExtOptional(), ext_math.ExtMath(), ext_bindings.ExtBindings(),
        ext_encoders.ExtEncoders(), cel.CelExtension("kubernetes", functions()),
    ]  # fmt: skip
    types = {name: _type(kind) for name, kind in variables}
    return cel.NewEnv(variables=types, extensions=extensions)


def compile_cel(source: str, variables: tuple[tuple[str, str], ...]) -> Expression:
    """Raises CelError with the engine's explanation."""
    env = environment(variables)
    try:
        return Expression(source, env.compile(source))
    except RuntimeError as error:
        text = str(error).removeprefix("INVALID_ARGUMENT: ")
        raise CelError(text.removesuffix(" [INVALID_ARGUMENT]").replace(" (in container '')", "")) from None


def _type(kind: str) -> Any:
    from cel_expr_python import cel

    plain = {
        "dyn": cel.Type.DYN, "bool": cel.Type.BOOL, "int": cel.Type.INT, "double": cel.Type.DOUBLE,
        "string": cel.Type.STRING, "bytes": cel.Type.BYTES, "timestamp": cel.Type.TIMESTAMP, "duration": cel.Type.DURATION,
    }  # fmt: skip
    if kind.startswith("list("):
        return cel.Type.List(_type(kind[5:-1]))
    if kind.startswith("map("):
        return cel.Type.Map(cel.Type.STRING, _type(kind[4:-1]))
    return plain[kind]


# --- Kubernetes' functions --------------------------------------------------------------------------------------------


def _is_sorted(items: list[Any]) -> bool:
    return all(a <= b for a, b in itertools.pairwise(items))


def _search(pattern: str) -> Any:
    import re2

    try:
        return re2.compile(pattern)
    except re2.error as error:
        raise PatternError(str(error)) from None


def _find(text: str, pattern: str) -> str:
    found = _search(pattern).search(text)
    return str(found.group()) if found else ""


def _find_all(text: str, pattern: str, most: int = -1) -> list[str]:
    found = [str(m.group()) for m in _search(pattern).finditer(text)]
    return found if most < 0 else found[:most]


def _works(parse_: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse_(text)
        except ValueError:
            return False
        return True

    return check


def _url(text: str) -> dict[str, str]:
    parts = urlsplit(text)
    if not (parts.scheme and (parts.netloc or parts.path)) and not text.startswith("/"):
        raise ValueError(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    return {"url": text}


def _ip(text: str) -> dict[str, str]:
    if "%" in text:
        raise ValueError(f"IP Address {text!r} with zone value is not allowed")
    return {"ip": str(ipaddress.ip_address(text))}


def _cidr(text: str) -> dict[str, str]:
    if "/" not in text:
        raise ValueError(f"network address parse error during conversion from string: {text}")
    return {"cidr": str(ipaddress.ip_interface(text).with_prefixlen)}


def _quantity(text: str) -> dict[str, str]:
    return {"quantity": quantity.canonical(text)}


def _amount(value: Any) -> Any:
    return parse(value["quantity"]) if isinstance(value, dict) else value


def _made(amount: Any) -> dict[str, str]:
    return {"quantity": quantity.canonical(str(amount) if isinstance(amount, int) else format(float(amount), "f"))}


def _within(cidr: dict[str, str], other: Any) -> bool:
    network = ipaddress.ip_network(cidr["cidr"], strict=False)
    if isinstance(other, str):
        other = {"cidr": other} if "/" in other else {"ip": other}
    if "ip" in other:
        return ipaddress.ip_address(other["ip"]) in network
    inner = ipaddress.ip_network(other["cidr"], strict=False)
    return inner.version == network.version and inner.subnet_of(network)  # type: ignore[arg-type]


def _index(items: list[Any], value: Any) -> int:
    return items.index(value) if value in items else -1


def _last_index(items: list[Any], value: Any) -> int:
    return len(items) - 1 - items[::-1].index(value) if value in items else -1


@functools.cache
def functions() -> list[Any]:
    """Declarations and implementations of what Kubernetes adds to CEL."""
    from cel_expr_python import cel

    T = cel.Type
    items, opaque = T.List(T.DYN), T.Map(T.STRING, T.STRING)
    found: dict[str, list[Any]] = {}

    def add(name: str, returns: Any, takes: list[Any], impl: Callable[..., Any], member: bool = True) -> None:
        overloads = found.setdefault(name, [])
        number = f"k8s_{name}_{len(overloads)}"
        overloads.append(cel.Overload(number, returns, takes, is_member=member, impl=impl))

    add("isSorted", T.BOOL, [items], _is_sorted)
    add("sum", T.DYN, [items], lambda values: math.fsum(values) if any(isinstance(v, float) for v in values) else sum(values))
    add("min", T.DYN, [items], min)
    add("max", T.DYN, [items], max)
    add("indexOf", T.INT, [items, T.DYN], _index)
    add("lastIndexOf", T.INT, [items, T.DYN], _last_index)
    add("find", T.STRING, [T.STRING, T.STRING], _find)
    add("findAll", T.List(T.STRING), [T.STRING, T.STRING], _find_all)
    add("findAll", T.List(T.STRING), [T.STRING, T.STRING, T.INT], _find_all)
    for name, read in (("URL", _url), ("IP", _ip), ("CIDR", _cidr), ("Quantity", _quantity)):
        add(f"is{name}", T.BOOL, [T.STRING], _works(read), False)
        add(name.lower(), opaque, [T.STRING], read, False)
    for name, part in (
        ("getScheme", lambda u: urlsplit(u["url"]).scheme),
        ("getHost", lambda u: urlsplit(u["url"]).netloc.rpartition("@")[2]),
        ("getHostname", lambda u: urlsplit(u["url"]).hostname or ""),
        ("getPort", lambda u: str(urlsplit(u["url"]).port or "")),
        ("getEscapedPath", lambda u: urlsplit(u["url"]).path),
        ("string", lambda v: next(iter(v.values()))),
    ):
        add(name, T.STRING, [opaque], part, name != "string")
    add("getQuery", T.Map(T.STRING, T.List(T.STRING)), [opaque], lambda u: parse_qs(urlsplit(u["url"]).query, True))
    add("family", T.INT, [opaque], lambda v: ipaddress.ip_address(v["ip"]).version)
    for name, attribute in (
        ("isUnspecified", "is_unspecified"), ("isLoopback", "is_loopback"), ("isLinkLocalUnicast", "is_link_local"),
        ("isGlobalUnicast", "is_global"),
    ):  # fmt: skip
        add(name, T.BOOL, [opaque], lambda v, a=attribute: bool(getattr(ipaddress.ip_address(v["ip"]), a)))
    add("containsIP", T.BOOL, [opaque, T.DYN], _within)
    add("containsCIDR", T.BOOL, [opaque, T.DYN], _within)
    add("prefixLength", T.INT, [opaque], lambda v: int(v["cidr"].partition("/")[2]))
    add("masked", opaque, [opaque], lambda v: {"cidr": str(ipaddress.ip_network(v["cidr"], strict=False))})
    add("isGreaterThan", T.BOOL, [opaque, opaque], lambda a, b: _amount(a) > _amount(b))
    add("isLessThan", T.BOOL, [opaque, opaque], lambda a, b: _amount(a) < _amount(b))
    add("compareTo", T.INT, [opaque, opaque], lambda a, b: (_amount(a) > _amount(b)) - (_amount(a) < _amount(b)))
    add("isInteger", T.BOOL, [opaque], lambda a: _amount(a) == int(_amount(a)))
    add("asInteger", T.INT, [opaque], lambda a: int(_amount(a)))
    add("asApproximateFloat", T.DOUBLE, [opaque], lambda a: float(_amount(a)))
    add("sign", T.INT, [opaque], lambda a: (_amount(a) > 0) - (_amount(a) < 0))
    for other in (opaque, T.INT):
        add("add", opaque, [opaque, other], lambda a, b: _made(_amount(a) + _amount(b)))
        add("sub", opaque, [opaque, other], lambda a, b: _made(_amount(a) - _amount(b)))
    return [cel.FunctionDecl(name, overloads) for name, overloads in found.items()]
