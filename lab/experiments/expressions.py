"""The small language of conditions, measures and expectations: arithmetic, comparisons, and named functions.

    rolled_out(deployment/web)                 a condition on the cluster of now
    min(ready(deployment/web), start..end)     a measure: between two marks
    end - start                                marks are times

It is Python's expression syntax, of which only numbers, texts, names, calls, arithmetic, comparisons, and/or/not and lists are
taken. Before it is parsed, ``kind/name`` and ``label=value`` become texts and ``a..b`` becomes ``span(a, b)``.
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import math
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from lab.experiments.series import Series
from lab.experiments.state import RESOURCES

_REFERENCE = re.compile(
    r"(?<![\w\"'/:])((?:[\w-]+:)?(?:" + "|".join(RESOURCES) + r")/[\w.-]*\w)|(?<=[(,])\s*([\w./-]+=[\w.-]+)(?=\s*[,)])"
)
_HYPHENS = re.compile(r"\b[a-z]+(?:-[a-z]+)+(?=\()")  # rolled-out(...) is rolled_out(...)
_INSTEAD = (
    (r"\btime-mean\(", "write mean(...), which is over time; by node: mean(by_node(cpu)) or imbalance(cpu)"),
    (r"\bbound\s*-\s*created\b", "write quantiles(waits(), [0.5, 0.95]), or of some pods waits(app=job)"),
    (r"\bload\.(failed|sent|ok)\b", "write failed(SERVICE), sent(SERVICE) or ok(SERVICE), such as failed(web)"),
    (r"\bby:\s*(node|pod|label)\b", "there is no by; a number a node: by_node(cpu), a number a label: shares(cpu, label)"),
)
"""Forms that people write, and what to write instead."""
_SPAN = re.compile(r"([\w.]+|\([^()]*\))\s*\.\.\s*([\w.]+|\([^()]*\))")



def _over(a: Any, b: Any) -> Any:
    """The share of nothing is no number, and no reason to stop: ``failed(web) / sent(web)`` before any request."""
    return math.nan if not isinstance(b, Series) and b == 0 and not isinstance(a, Series | str | list) else a / b


def _compared(how: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A comparison of numbers, and of values over time: 1 while it holds, else 0."""

    def compare(a: Any, b: Any) -> Any:
        if isinstance(a, Series):
            return a.compare(how, b)
        return b.compare(lambda x, y: how(y, x), a) if isinstance(b, Series) else how(a, b)

    return compare


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: _over,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    op: _compared(how) for op, how in (
        (ast.Lt, operator.lt), (ast.LtE, operator.le), (ast.Gt, operator.gt), (ast.GtE, operator.ge), (ast.Eq, operator.eq),
        (ast.NotEq, operator.ne),
    )
}  # fmt: skip


class ExpressionError(ValueError):
    """The expression is wrong; the message says how."""


@functools.lru_cache(1024)
def _parsed(text: str) -> tuple[ast.expr, frozenset[str], frozenset[str]]:
    """The tree, the functions that it calls, and the other names in it. Raises ExpressionError."""
    for pattern, hint in _INSTEAD:
        if re.search(pattern, text):
            raise ExpressionError(f"{text!r}: {hint}")
    prepared = _HYPHENS.sub(lambda m: m[0].replace("-", "_"), text)
    prepared = _REFERENCE.sub(lambda m: repr(m[1] or m[2]), prepared)
    prepared = _SPAN.sub(r"span(\1, \2)", prepared)
    try:
        tree = ast.parse(prepared.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ExpressionError(f"{text!r} is no expression: {getattr(error, 'msg', error)}") from None
    nodes = list(ast.walk(tree))
    for node in nodes:
        if not isinstance(node, _ALLOWED):
            raise ExpressionError(f"{text!r}: {type(node).__name__} is not part of the language")
        if isinstance(node, ast.Attribute) and not isinstance(node.value, ast.Name):
            raise ExpressionError(f"{text!r}: only a name may stand before a dot, such as wait.p95")
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Name):
            raise ExpressionError(f"{text!r}: {ast.unparse(node.func)} is no function")
    dotted = [n for n in nodes if isinstance(n, ast.Attribute)]
    inner = {id(n.func) for n in nodes if isinstance(n, ast.Call)} | {id(n.value) for n in dotted}
    names = {n.id for n in nodes if isinstance(n, ast.Name) and id(n) not in inner} | {_dotted(n) for n in dotted}
    calls = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return tree, frozenset(calls), frozenset(names)


class Expression:
    """One expression, parsed. ``calls`` are the functions it calls, ``names`` the other names."""

    def __init__(self, text: str) -> None:
        self.text = str(text)
        self._tree, self.calls, self.names = _parsed(self.text)

    def _calls(self) -> Iterator[ast.Call]:
        return (n for n in ast.walk(self._tree) if isinstance(n, ast.Call))

    def constants(self, function: str, position: int) -> list[Any]:
        """The arguments at a position of all calls of a function, as far as they are written out."""
        calls = [c for c in self._calls() if isinstance(c.func, ast.Name) and c.func.id == function and len(c.args) > position]
        return [a.value for c in calls if isinstance(a := c.args[position], ast.Constant)]

    def listed(self, function: str, position: int) -> list[Any] | None:
        """The numbers of the list at a position of the call that the whole expression is; None if it is another."""
        match self._tree:
            case ast.Call(func=ast.Name(id=name), args=arguments) if name == function and len(arguments) > position:
                values = [e.value for e in getattr(arguments[position], "elts", ()) if isinstance(e, ast.Constant)]
                if not values or not all(isinstance(v, int | float) and 0 <= v <= 1 for v in values):
                    raise ExpressionError(f"{self.text!r}: {function} needs a list of numbers from 0 to 1, such as [0.5, 0.95]")
                return values
        return None

    def check(self, functions: Collection[str], names: Collection[str] | None = None) -> None:
        """Raises ExpressionError for a function or name that does not exist, with the one that was meant."""
        for call in sorted(self.calls - set(functions)):
            raise ExpressionError(f"{self.text!r}: there is no function {call!r}{meant(call, functions)}")
        for name in sorted(self.names - set(names)) if names is not None else ():
            raise ExpressionError(f"{self.text!r}: there is no {name!r}{meant(name, names or ())}")

    def check_truth(self, truths: Collection[str] = ()) -> None:
        """Raises ExpressionError if it is neither true nor false: not a comparison, none of the functions ``truths``, and no
        and/or/not of these."""
        if (odd := _no_truth(self._tree, truths)) is not None:
            part = ast.unparse(odd)
            of = "" if odd is self._tree else f"{part!r} in "
            raise ExpressionError(f"{of}{self.text!r} is neither true nor false; compare it, such as {part} > 0")

    def try_all(self, functions: Mapping[str, Callable[..., Any]], names: Mapping[str, Any]) -> Any:
        """The value, with every part of it worked out, those that and/or pass over, too. Raises ExpressionError for whatever
        is not possible, as a call with too many arguments."""
        for node in reversed([n for n in ast.walk(self._tree) if isinstance(n, ast.expr) and not isinstance(n, ast.Constant)]):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                try:
                    fit(functions[node.func.id], [self._value(a, functions, names) for a in node.args],
                        {k.arg: self._value(k.value, functions, names) for k in node.keywords if k.arg})  # fmt: skip
                except TypeError as error:
                    raise ExpressionError(f"{ast.unparse(node)}: {error}") from None
            if isinstance(node, ast.Call | ast.BinOp | ast.UnaryOp | ast.Compare | ast.BoolOp):
                try:
                    self._value(node, functions, names)
                except ExpressionError:
                    raise
                except (TypeError, ValueError, LookupError, AttributeError) as error:
                    raise ExpressionError(f"{ast.unparse(node)}: {error}") from None
        return self._value(self._tree, functions, names)

    def evaluate(self, functions: Mapping[str, Callable[..., Any]], names: Mapping[str, Any]) -> Any:
        return self._value(self._tree, functions, names)

    def parts(self, functions: Mapping[str, Callable[..., Any]], names: Mapping[str, Any]) -> dict[str, Any]:
        """The values of its names and calls, by their texts: what a person asks for where it is not true."""
        called = [n for n in ast.walk(self._tree) if isinstance(n, ast.Call)]
        heads = {id(n.func) for n in called}
        named = [n for n in ast.walk(self._tree) if isinstance(n, ast.Name | ast.Attribute) and id(n) not in heads]
        said = [n for n in named if ast.unparse(n) in names]  # not the words of a reference, such as deployment/web
        return {ast.unparse(n): self._value(n, functions, names) for n in (*said, *called)}

    def _value(self, node: ast.expr, functions: Mapping[str, Callable[..., Any]], names: Mapping[str, Any]) -> Any:
        def of(one: ast.expr) -> Any:
            return self._value(one, functions, names)

        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                if node.id not in names:
                    raise ExpressionError(f"{self.text!r}: there is no {node.id!r}{meant(node.id, names)}")
                return names[node.id]
            case ast.Attribute():
                if (dotted := _dotted(node)) not in names:
                    raise ExpressionError(f"{self.text!r}: there is no {dotted!r}{meant(dotted, names)}")
                return names[dotted]
            case ast.List() | ast.Tuple():
                return [of(n) for n in node.elts]
            case ast.Call(func=ast.Name(id=name)):
                if name not in functions:
                    raise ExpressionError(f"{self.text!r}: there is no function {name!r}{meant(name, functions)}")
                return functions[name](*map(of, node.args), **{k.arg: of(k.value) for k in node.keywords if k.arg})
            case ast.BinOp():
                return _BINARY[type(node.op)](of(node.left), of(node.right))
            case ast.UnaryOp():
                return not self._truth(of(node.operand)) if isinstance(node.op, ast.Not) else -of(node.operand)
            case ast.BoolOp():
                values = (self._truth(of(n)) for n in node.values)
                return all(values) if isinstance(node.op, ast.And) else any(values)
            case ast.Compare():
                left = of(node.left)
                for op, right in zip(node.ops, node.comparators, strict=True):
                    other = of(right)
                    if len(node.ops) == 1:
                        return _COMPARE[type(op)](left, other)  # of values over time, too
                    if not self._truth(_COMPARE[type(op)](left, other)):
                        return False
                    left = other
                return True
        raise ExpressionError(f"{self.text!r}: {type(node).__name__} is not part of the language")

    def _truth(self, value: Any) -> bool:
        if isinstance(value, Series | list | str):
            kind = {Series: "a value over time", list: "a list", str: "a text"}[type(value)]
            raise ExpressionError(f"{self.text!r}: {kind} is neither true nor false; take min, max, last ... and compare it")
        return bool(value)


def reference_arguments(expression: Expression, functions: Mapping[str, Callable[..., Any]]) -> Iterator[tuple[str, str]]:
    """The texts that calls of functions have for ``reference``, ``image``, or ``name`` of a node: parameter and text."""
    for call in sorted(expression.calls & set(functions)):
        for place, name in enumerate(list(inspect.signature(functions[call]).parameters)[1:]):  # after self
            if name in ("reference", "image") or (name, call) == ("name", "node_ready"):
                yield from ((name, value) for value in expression.constants(call, place) if isinstance(value, str) and value)


def _no_truth(node: ast.expr, truths: Collection[str]) -> ast.expr | None:
    """The first part that is neither true nor false, where one of these is needed."""
    match node:
        case ast.Compare() | ast.Constant(value=bool()):
            return None
        case ast.Call(func=ast.Name(id=name)) if name in truths:
            return None
        case ast.BoolOp():
            return next((odd for one in node.values if (odd := _no_truth(one, truths)) is not None), None)
        case ast.UnaryOp(op=ast.Not()):
            return _no_truth(node.operand, truths)
    return node


_KINDS: dict[str, tuple[Any, str]] = {
    "str": (str, "a text"), "float": ((int, float), "a number"), "Span | None": (tuple, "a span such as start..end"),
    "Span": (tuple, "a span such as start..end"), "Series": (Series, "a value over time"), "list": (list, "a list"),
}  # fmt: skip


def fit(function: Callable[..., Any], arguments: list[Any], named: Mapping[str, Any]) -> None:
    """Raises TypeError unless the arguments are as many, and of the kinds, that a function takes."""
    bound = inspect.signature(function).bind(*arguments, **named)
    for name, value in bound.arguments.items():
        kind, text = _KINDS.get(str(bound.signature.parameters[name].annotation), (object, ""))
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} is not {text}" if isinstance(value, str | int | float) else f"{name} must be {text}")


def _dotted(node: ast.Attribute) -> str:
    assert isinstance(node.value, ast.Name)
    return f"{node.value.id}.{node.attr}"


_ALLOWED = (
    ast.Attribute, ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple, ast.Call, ast.keyword, ast.BinOp, ast.UnaryOp,
    ast.BoolOp, ast.Compare, ast.And, ast.Or, ast.Not, ast.USub, *_BINARY, *_COMPARE,
)  # fmt: skip


def meant(word: str, words: Collection[str]) -> str:
    """A hint at what was meant: the nearest known word, or all of a few."""
    near = difflib.get_close_matches(word, list(words), 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(sorted(words))}" if 0 < len(words) <= 40 else ""
