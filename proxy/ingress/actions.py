"""From a choice of the model to nginx's directives: pure text. Maps, upstreams and splits, which stand at the top, are kept.

Values of others are quoted here and nowhere else: a quote, a backslash and a dollar lose their meaning, control characters are
refused. Names of variables are made of digests, so nothing that somebody wrote becomes a name.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote

from proxy.ingress.model import Backend, Choice, Condition, Header, Redirect, Rewrite

ANSWERS = {
    404: 'return 404 "nothing is served for this host and path\\n";',
    500: 'return 500 "the route has no backend that can be reached\\n";',
    503: 'return 503 "the Service of this path is not there, or has no endpoint\\n";',
}
HEADERS = {
    "Host": "$http_host", "X-Real-IP": "$remote_addr", "X-Forwarded-For": "$remote_addr",
    "X-Forwarded-Host": "$http_host", "X-Forwarded-Port": "$forwarded_port", "X-Forwarded-Proto": "$scheme",
    "Upgrade": "$http_upgrade", "Connection": "$connection_upgrade",
}  # fmt: skip
"""Headers for a backend, unless a route changes them."""
HOP = frozenset({
    "connection", "upgrade", "content-length", "transfer-encoding", "te", "trailer", "keep-alive", "proxy-connection", "expect",
})  # fmt: skip
"""Headers of one connection: who changes them could make two servers see different requests."""
NEVER = "3650d"  # a timeout that nobody meets: 0 would be none at all


def is_text(text: str) -> bool:
    """Nothing in it is a control character, or half of a character."""
    return not any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in text)


def quoted(text: str) -> str:
    """A string of nginx's language. Raises ValueError for what it cannot hold."""
    if not is_text(text):
        raise ValueError(f"control characters in {text!r}")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def literal(text: str) -> str:
    """A string in which nginx looks for variables, and finds none of the writer's."""
    return quoted(text).replace("$", "${dollar}")


def pattern(text: str) -> str:
    """A regular expression for a text of others, as bytes are compared: case counts, and nothing has a meaning."""
    return re.sub(r"([^A-Za-z0-9_\x80-\U0010ffff])", r"\\\1", text)


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def answer(status: int) -> str:
    return f"default_type text/plain; {ANSWERS[status]}"


class Actions:
    """Writes choices; ``top`` gathers what they need at nginx's top level, by name."""

    def __init__(self) -> None:
        self.top: dict[str, str] = {}

    def of(self, choice: Choice) -> str:
        """The directives of a location, or of a part of one."""
        out = [self._reply_header(change) for change in choice.response_headers]
        if choice.redirect is not None:
            return " ".join([*out, *_redirect(choice.redirect, choice.rewrite)])
        if choice.rewrite is not None:
            out += _rewrite(choice.rewrite)
        if choice.request_headers or choice.host:
            out += self._headers(choice)
        if choice.timeout is not None:
            limit = f"{choice.timeout}ms" if choice.timeout else NEVER
            out.append(f"proxy_read_timeout {limit}; proxy_send_timeout {limit}; proxy_next_upstream_timeout {limit};")
        return " ".join([*out, self._pass(choice.split)])

    def chosen(self, choices: tuple[Choice, ...], names: list[str], otherwise: str) -> str:
        """A variable that holds the name of the first choice whose conditions are met."""
        tests = list(dict.fromkeys(condition for choice in choices for condition in choice.conditions))
        bits = "".join(self._test(condition) for condition in tests)
        rows = []
        for choice, name in zip(choices, names, strict=True):
            shape = "".join("1" if test in choice.conditions else "." for test in tests)
            rows.append(f'"~^{shape}" {name};')
        variable = f"$chosen_{digest(bits, rows, otherwise)}"
        self.top[variable] = f'map "{bits}" {variable} {{ {" ".join(rows)} default {otherwise}; }}'
        return variable

    def _test(self, condition: Condition) -> str:
        variable = f"$test_{digest(condition)}"
        expression = quoted("~" + condition.pattern)
        self.top[variable] = f"map {condition.variable} {variable} {{ {expression} 1; default 0; }}"
        return variable

    def _headers(self, choice: Choice) -> list[str]:
        """All that the backend is told: nginx forgets the outer ones where there is one of these."""
        values = {name.lower(): (name, value) for name, value in HEADERS.items()}
        if choice.host:
            values["host"] = "Host", literal(choice.host)
        for change in choice.request_headers:
            value = {"set": literal(change.value), "remove": '""'}.get(change.how) or self._joined(change)
            values[change.name.lower()] = change.name, value
        return [f"proxy_set_header {name} {value};" for name, value in values.values()]

    def _joined(self, change: Header) -> str:
        """A variable: what the client sent in a header, and one more value."""
        source, variable = f"$http_{change.name.lower().replace('-', '_')}", f"$joined_{digest(change)}"
        value = literal(change.value)
        self.top[variable] = f'map {source} {variable} {{ "" {value}; default "{source},{value[1:-1]}"; }}'
        return variable

    def _reply_header(self, change: Header) -> str:
        hide = f"proxy_hide_header {change.name};" if change.how != "add" else ""
        return hide + (f"add_header {change.name} {literal(change.value)} always;" if change.how != "remove" else "")

    def _pass(self, split: tuple[tuple[Backend, int], ...]) -> str:
        weighted = sorted(((b, weight) for b, weight in split if weight > 0), key=lambda pair: pair[1])
        if not weighted:
            return answer(500)
        where = [self._where(backend) for backend, _ in weighted]
        if len(where) == 1:
            return f"proxy_pass {where[0]};" if not where[0].isdigit() else answer(int(where[0]))
        total, rows = sum(weight for _, weight in weighted), []
        for place, (_, weight) in zip(where[:-1], weighted[:-1], strict=True):
            rows.append(f'{max(1, weight * 10000 // total) / 100:.2f}% "{place}";')
        variable = f"$split_{digest(rows, where)}"
        self.top[variable] = f'split_clients "$request_id" {variable} {{ {" ".join(rows)} * "{where[-1]}"; }}'
        ends = sorted({place for place in where if place.isdigit()})
        return " ".join([*(f'if ({variable} = "{end}") {{ {ANSWERS[int(end)]} }}' for end in ends), f"proxy_pass {variable};"])

    def _where(self, backend: Backend) -> str:
        """The URL of a backend, or the status of one that is not there."""
        if not backend.targets:
            return str(backend.status)
        name = "endpoints-" + hashlib.sha256(" ".join(backend.targets).encode()).hexdigest()[:16]
        self.top[name] = f"upstream {name} {{ {' '.join(f'server {target};' for target in backend.targets)} }}"
        return f"{'https' if backend.secure else 'http'}://{name}"


def _redirect(redirect: Redirect, path: Rewrite | None) -> list[str]:
    origin = f"{redirect.scheme}://" + (literal(redirect.host)[1:-1] or "$host") + redirect.port
    if path is None:
        return [f'return {redirect.status} "{origin}$request_uri";']
    if path.prefix is None:
        return [f'return {redirect.status} "{origin}{literal(path.path)[1:-1]}$is_args$args";']
    word = {301: "permanent", 302: "redirect"}[redirect.status]  # unlike return, these escape what the client sent
    return [f'rewrite {expression} "{origin}{new}" {word};' for expression, new in _replaced(path.path, path.prefix)]


def _rewrite(rewrite: Rewrite) -> list[str]:
    path = unquote(rewrite.path)  # it is encoded again on its way out
    if rewrite.prefix is None:
        return [f'rewrite "(?s)^.*\\\\z" {literal(path)} break;']
    return [f'rewrite {expression} "{new}" break;' for expression, new in _replaced(path, rewrite.prefix)]


def _replaced(path: str, prefix: str) -> list[tuple[str, str]]:
    """Expressions for a path below a prefix, and what it becomes. The inside of strings of nginx."""
    new = literal(path.rstrip("/"))[1:-1]
    old = pattern(prefix.rstrip("/"))
    below = quoted(f"(?s)^{old}(/.*)\\z"), f"{new}$1"
    return [(quoted(f"(?s)^{old}\\z"), new or "/"), below] if old else [below]
