"""From hosts and paths to nginx's configuration: pure text.

Each host is a ``server``. An exact path is a location with ``=``; a prefix of path elements is two: ``= /foo`` and ``/foo/``,
since ``/foobar`` is not below ``/foo``. A wildcard is a regular expression for one label: nginx's own takes several.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from proxy.ingress.routes import Backend, Host, Location, Site

NOT_FOUND = 'default_type text/plain; return 404 "no Ingress has a rule for this host and path\\n";'
NO_BACKEND = 'default_type text/plain; return 503 "the Service of this path is not there, or has no endpoint\\n";'


@dataclass(frozen=True)
class Place:
    """Where nginx listens and keeps its files. ``fallback``: certificate and key for hosts that have none."""

    address: str
    http: int
    https: int
    directory: str
    user: str = "nobody nogroup"  # of the workers
    workers: int = 1


def quoted(text: str) -> str:
    """A string of nginx's language. Raises ValueError for what it cannot hold."""
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError(f"control characters in {text!r}")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def server_name(host: str) -> str:
    if host.startswith("*."):
        return quoted("~^[^.]+" + re.escape(host[1:]).replace("\\-", "-") + "$")
    return quoted(host)


def upstream_name(backend: Backend) -> str:
    return "endpoints-" + hashlib.sha256(" ".join(backend.targets).encode()).hexdigest()[:16]


def render(site: Site, place: Place) -> str:
    """The whole file."""
    return "\n".join([*_head(place), *_upstreams(site), *(line for h in site.hosts for line in _server(h, place)), "}", ""])


def _head(place: Place) -> list[str]:
    temp = [f"{kind}_temp_path {place.directory}/temp-{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]  # fmt: skip
    headers = {
        "Host": "$http_host", "X-Real-IP": "$remote_addr", "X-Forwarded-For": "$remote_addr",
        "X-Forwarded-Host": "$http_host", "X-Forwarded-Port": "$forwarded_port", "X-Forwarded-Proto": "$scheme",
        "Upgrade": "$http_upgrade", "Connection": "$connection_upgrade",
    }  # fmt: skip
    return [
        f"user {place.user};", f"worker_processes {place.workers};", f"pid {place.directory}/nginx.pid;",
        "worker_shutdown_timeout 240s;", "events { worker_connections 4096; }", "http {",
        "access_log off; server_tokens off; merge_slashes off; client_max_body_size 0; absolute_redirect off;",
        "server_names_hash_bucket_size 512; server_names_hash_max_size 8192;", *temp,
        "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:tls:4m; ssl_session_timeout 10m;",
        'map $http_upgrade $connection_upgrade { default upgrade; "" ""; }',
        "map $scheme $forwarded_port { default 80; https 443; }",
        "proxy_http_version 1.1; proxy_connect_timeout 5s;",
        *(f"proxy_set_header {name} {value};" for name, value in headers.items()),
    ]  # fmt: skip


def _backends(site: Site) -> Iterator[Backend]:
    for host in site.hosts:
        if host.default is not None:
            yield host.default
        yield from (location.backend for location in host.locations)


def _upstreams(site: Site) -> list[str]:
    several = {upstream_name(b): b for b in _backends(site) if len(b.targets) > 1}
    return [
        f"upstream {name} {{ {' '.join(f'server {target};' for target in backend.targets)} }}"
        for name, backend in sorted(several.items())
    ]


def _server(host: Host, place: Place) -> list[str]:
    first = " default_server" if not host.name else ""
    name = host.certificate or "fallback"
    return [
        "server {",
        f"listen {place.address}:{place.http}{first}; listen {place.address}:{place.https} ssl{first};",
        f"server_name {server_name(host.name) if host.name else quoted('')};",
        f"ssl_certificate {place.directory}/{name}.crt; ssl_certificate_key {place.directory}/{name}.key;",
        *_locations(host),
        "}",
    ]


def _locations(host: Host) -> list[str]:
    exact = {loc.path for loc in host.locations if loc.exact}
    out = []
    for location in host.locations:
        out += [f"location {where} {{ {_pass(location.backend)} }}" for where in _wheres(location, exact)]
    if not any(loc.path == "/" and not loc.exact for loc in host.locations):
        out.append(f"location / {{ {_pass(host.default) if host.default is not None else NOT_FOUND} }}")
    return out


def _wheres(location: Location, exact: set[str]) -> list[str]:
    """The locations that a path becomes. ``exact``: paths that an exact rule has, which goes before a prefix."""
    if location.exact:
        return [f"= {quoted(location.path)}"]
    if location.path == "/":
        return ["/"]
    below = quoted(location.path + "/")
    return [below] if location.path in exact else [f"= {quoted(location.path)}", below]


def _pass(backend: Backend) -> str:
    if not backend.targets:
        return NO_BACKEND
    where = backend.targets[0] if len(backend.targets) == 1 else upstream_name(backend)
    return f"proxy_pass {'https' if backend.secure else 'http'}://{where};"
