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
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

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

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip


class ExpressionError(ValueError):
    """The expression is wrong; the message says how."""


class Expression:
    """One expression, parsed. ``calls`` are the functions it calls, ``names`` the other names."""

    def __init__(self, text: str) -> None:
        self.text = str(text)
        for pattern, hint in _INSTEAD:
            if re.search(pattern, str(text)):
                raise ExpressionError(f"{text!r}: {hint}")
        text = _HYPHENS.sub(lambda m: m[0].replace("-", "_"), str(text))
        prepared = _REFERENCE.sub(lambda m: repr(m[1] or m[2]), str(text))
        prepared = _SPAN.sub(r"span(\1, \2)", prepared)
        try:
            self._tree = ast.parse(prepared.strip(), mode="eval").body
        except SyntaxError as error:
            raise ExpressionError(f"{text!r} is no expression: {error.msg}") from None
        for node in ast.walk(self._tree):
            if not isinstance(node, _ALLOWED):
                raise ExpressionError(f"{text!r}: {type(node).__name__} is not part of the language")
            if isinstance(node, ast.Attribute) and not isinstance(node.value, ast.Name):
                raise ExpressionError(f"{text!r}: only a name may stand before a dot, such as wait.p95")
        inner = {id(n.func) for n in ast.walk(self._tree) if isinstance(n, ast.Call)}
        dotted = [n for n in ast.walk(self._tree) if isinstance(n, ast.Attribute)]
        inner |= {id(n.value) for n in dotted}
        self.calls = {n.func.id for n in self._calls() if isinstance(n.func, ast.Name)}
        self.names = {n.id for n in ast.walk(self._tree) if isinstance(n, ast.Name) and id(n) not in inner}
        self.names |= {_dotted(n) for n in dotted}

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

    def evaluate(self, functions: Mapping[str, Callable[..., Any]], names: Mapping[str, Any]) -> Any:
        return self._value(self._tree, functions, names)

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
                return not of(node.operand) if isinstance(node.op, ast.Not) else -of(node.operand)
            case ast.BoolOp():
                every = isinstance(node.op, ast.And)
                return all(map(of, node.values)) if every else any(map(of, node.values))
            case ast.Compare():
                left = of(node.left)
                for op, right in zip(node.ops, node.comparators, strict=True):
                    other = of(right)
                    if len(node.ops) == 1:
                        return _COMPARE[type(op)](left, other)  # of values over time, too
                    if not _COMPARE[type(op)](left, other):
                        return False
                    left = other
                return True
        raise ExpressionError(f"{self.text!r}: {type(node).__name__} is not part of the language")


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
