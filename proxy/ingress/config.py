"""From hosts and paths to nginx's configuration: pure text.

Each host is a ``server``. An exact path is a location with ``=``; a prefix of path elements is two: ``= /foo`` and ``/foo/``,
since ``/foobar`` is not below ``/foo``. Where the path does not decide alone, a map finds the name of a location of the choice,
and the way there is an error page: the only jump of nginx that keeps method, body and path. The wildcard of an Ingress
is a regular expression for one label: nginx's own takes several.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.ingress.actions import HEADERS, Actions, answer, digest, quoted
from proxy.ingress.model import Choice, Host, Location, Site

JUMP = 418  # a status that nothing else here answers


@dataclass(frozen=True)
class Place:
    """Where nginx listens and keeps its files. ``fallback``: certificate and key for hosts that have none."""

    address: str
    http: int
    https: int
    directory: str
    user: str = "nobody nogroup"  # of the workers
    workers: int = 1


def server_name(host: Host) -> str:
    if host.name.startswith("*.") and not host.deep:
        return quoted("~^[^.]+" + re.escape(host.name[1:]).replace("\\-", "-") + "$")
    return quoted(host.name)


def render(site: Site, place: Place) -> str:
    """The whole file. Raises ValueError for what nginx's language cannot hold."""
    actions = Actions()
    servers = [line for host in site.hosts for line in _server(host, place, actions)]
    ports = site.ports or {place.http: 80, place.https: 443}
    rows = " ".join(f"{inside} {shown};" for inside, shown in sorted(ports.items()))
    top = [f"map $server_port $forwarded_port {{ {rows} default $server_port; }}"]
    top += [actions.top[name] for name in sorted(actions.top)]
    return "\n".join([*_head(place), *top, *servers, "}", ""])


def _head(place: Place) -> list[str]:
    temp = [f"{kind}_temp_path {place.directory}/temp-{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]  # fmt: skip
    return [
        f"user {place.user};", f"worker_processes {place.workers};", f"pid {place.directory}/nginx.pid;",
        "worker_shutdown_timeout 240s;", "events { worker_connections 4096; }", "http {",
        "access_log off; server_tokens off; merge_slashes off; client_max_body_size 0; absolute_redirect off;",
        "server_names_hash_bucket_size 512; server_names_hash_max_size 8192;", *temp,
        "variables_hash_max_size 65536; variables_hash_bucket_size 128; map_hash_max_size 8192; map_hash_bucket_size 512;",
        "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:tls:4m; ssl_session_timeout 10m;",
        'geo $dollar { default "$"; }',
        'map $http_upgrade $connection_upgrade { default upgrade; "" ""; }',
        "proxy_http_version 1.1; proxy_connect_timeout 5s;",
        *(f"proxy_set_header {name} {value};" for name, value in HEADERS.items()),
    ]  # fmt: skip


def _server(host: Host, place: Place, actions: Actions) -> list[str]:
    first = " default_server" if not host.name else ""
    listens = host.listens or ((place.http, False), (place.https, True))
    words = [f"listen {place.address}:{port}{' ssl' if tls else ''}{first};" for port, tls in listens]
    head = ["server {", " ".join(words), f"server_name {server_name(host)};"]
    pairs = [
        f"ssl_certificate {place.directory}/{name}.crt; ssl_certificate_key {place.directory}/{name}.key;"
        for name in (host.certificates or ("fallback",) if any(tls for _, tls in listens) else ())
    ]
    if host.refuses:
        return [*head, *(["ssl_reject_handshake on;"] if pairs else []), f"location / {{ {answer(404)} }}", "}"]
    return [*head, *pairs, *_locations(host, actions), "}"]


def _locations(host: Host, actions: Actions) -> list[str]:
    exact = {loc.path for loc in host.locations if loc.exact}
    nothing = actions.of(Choice(((host.default, 1),))) if host.default is not None else answer(404)
    inner: dict[str, str] = {}  # what a jump can lead to
    out = []
    for location in host.locations:
        body = _body(location, nothing, inner, actions)
        out += [f"location {where} {{ {body} }}" for where in _wheres(location, exact)]
    if not any(loc.path == "/" and not loc.exact for loc in host.locations):
        out.append(f"location / {{ {nothing} }}")
    return out + [f"location {name} {{ {body} }}" for name, body in sorted(inner.items())]


def _body(location: Location, nothing: str, inner: dict[str, str], actions: Actions) -> str:
    if not location.choices[0].conditions:
        return actions.of(location.choices[0])
    bodies = [actions.of(choice) for choice in location.choices]
    names = [f"@{digest(body)}" for body in bodies]
    inner |= dict(zip(names, bodies, strict=True)) | {"@nothing": nothing}
    return f"error_page {JUMP} = {actions.chosen(location.choices, names, '@nothing')}; return {JUMP};"


def _wheres(location: Location, exact: set[str]) -> list[str]:
    """The locations that a path becomes. ``exact``: paths that an exact rule has, which goes before a prefix."""
    if location.exact:
        return [f"= {quoted(location.path)}"]
    if location.path == "/":
        return ["/"]
    below = quoted(location.path + "/")
    return [below] if location.path in exact else [f"= {quoted(location.path)}", below]
