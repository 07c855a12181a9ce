"""CEL as Kubernetes has it: compiling and evaluating expressions, for rules of custom resources, match conditions of
webhooks and admission policies alike.

The engine is cel-cpp (package cel-expr-python), loaded when the first expression comes. Kubernetes' own functions are in
the modules beside this one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from apiserver.cel.library import functions

_EXTENSIONS = "name: kubernetes\nextensions:\n- name: sets\n- name: two-var-comprehensions\n"
_MISMATCH = re.compile(r"found no matching overload for '([^']*)' applied to '\(([^']*)\)'")
_NUMBERS = ("int", "uint", "double")


class CelError(Exception):
    """An expression that does not compile, or does not evaluate; the message is the engine's."""


class Unset(CelError):
    """The expression asks for a declared variable (``args[0]``) that was given no value."""


_UNSET = re.compile(r'No value with name "([^"]*)" found in Activation')


class Expression:
    """A compiled expression. ``returns``: the name of the type that it gives, as far as that is known; ``checked``:
    whether it is known at all."""

    def __init__(self, source: str, compiled: Any, checked: bool = True) -> None:
        self.source, self.checked = source, checked
        self._compiled = compiled
        self.returns: str = compiled.return_type().name().lower()

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """The value of the expression. Raises CelError."""
        return self._value({"data": variables})

    def within(self, activation: Any) -> Any:
        """The value in an :func:`activation`, which spares turning the variables over for each expression. Raises
        CelError, or Unset if it needs a variable that has no value yet."""
        return self._value({"activation": activation})

    def serialized(self) -> bytes:
        """The checked expression in protobuf, as apiserver/crd/ast.py reads it."""
        return bytes(self._compiled.serialize())

    def _value(self, arguments: Mapping[str, Any]) -> Any:
        try:
            result = self._compiled.eval(**arguments)
        except RuntimeError as error:
            # The engine counts the turns of loops: no rule can take for ever.
            text = "actual cost limit exceeded" if "budget" in str(error) else _reason(str(error))
            raise CelError(text) from None
        if result.type().name() == _error_name():
            text = str(result.value())
            if unset := _UNSET.search(text):
                raise Unset(unset[1])
            raise CelError(_reason(text))
        return result.plain_value()


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
    if match := re.match(r"Index error: index=(-?\d+)", text):
        return f"index out of bounds: {match[1]}"
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
    return cel.NewEnv(config=cel.NewEnvConfigFromYaml(_EXTENSIONS), variables=types, extensions=extensions)


def activation(variables: tuple[tuple[str, str], ...], values: Mapping[str, Any]) -> Any:
    """Values for many expressions of one environment."""
    return environment(variables).Activation(data=values)


def compile_cel(source: str, variables: tuple[tuple[str, str], ...]) -> Expression:
    """Compiles an expression that may use ``variables``, which are pairs of name and type. A name may have dots: then
    ``variables.x`` is a variable, and not a field. Raises CelError with the engine's explanation."""
    env = environment(variables)
    try:
        return Expression(source, env.compile(source))
    except RuntimeError as error:
        text = str(error)
    if _only_numbers(text):
        return Expression(source, env.compile(source, disable_check=True), checked=False)
    text = text.removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
    roots = {name.partition(".")[0] for name, _ in variables if "." in name}
    raise CelError(_UNDECLARED.sub(lambda match: _undeclared(match, roots), text))


_UNDECLARED = re.compile(
    r"ERROR: <input>:(\d+):(\d+): undeclared reference to '(\w+)((?:\.\w+)+)' \(in container ''\)\n \| (.*)\n \| \.*\^"
)


def _undeclared(match: re.Match[str], roots: set[str]) -> str:
    """This engine complains of the whole of ``a.b``; Kubernetes' of ``a``, or of the field if there is an ``a``."""
    line, column, name, rest, source = match[1], int(match[2]) - 1, match[3], match[4], match[5]
    if name in roots:
        what = f"undefined field '{rest.rpartition('.')[2]}'"
    else:
        column = max(0, source.rfind(name, 0, column + 1))
        what = f"undeclared reference to '{name}' (in container '')"
    return f"ERROR: <input>:{line}:{column + 1}: {what}\n | {source}\n | {'.' * column}^"


def _only_numbers(text: str) -> bool:
    """Whether all that the checker minds is that numbers of two kinds are compared. Kubernetes allows that, and the
    engine can do it too."""
    errors = text.count("ERROR:")
    allowed = [
        match for match in _MISMATCH.finditer(text)
        if match[1] in ("_<_", "_<=_", "_>_", "_>=_") and all(p in _NUMBERS for p in match[2].split(", "))
    ]  # fmt: skip
    return bool(errors) and errors == len(allowed)


def _type(kind: str) -> Any:
    """A type by its name; what has no name here is ``dyn``."""
    from cel_expr_python import cel

    plain = {
        "dyn": cel.Type.DYN, "bool": cel.Type.BOOL, "int": cel.Type.INT, "double": cel.Type.DOUBLE,
        "string": cel.Type.STRING, "bytes": cel.Type.BYTES, "timestamp": cel.Type.TIMESTAMP, "duration": cel.Type.DURATION,
        "null": cel.Type.NULL,
    }  # fmt: skip
    if kind.startswith("list(") or kind.startswith("list<"):
        return cel.Type.List(_type(kind[5:-1]))
    if kind.startswith("map("):
        return cel.Type.Map(cel.Type.STRING, _type(kind[4:-1]))
    if kind.startswith("map<string, "):
        return cel.Type.Map(cel.Type.STRING, _type(kind[12:-1]))
    return plain.get(kind, cel.Type.DYN)
