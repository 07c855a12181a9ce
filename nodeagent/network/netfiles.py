"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a pod. Pure text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from navarch.api.types import core_v1

_HEADER = "# Kubernetes-managed hosts file"
_LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""
MAX_NAMESERVERS = 3


def hostname(pod: core_v1.Pod, node_name: str) -> str:
    """The name that ``hostname`` prints in the pod."""
    if pod.spec.host_network:
        return node_name
    name = pod.spec.hostname or pod.metadata.name or ""
    if pod.spec.set_hostname_as_fqdn and pod.spec.subdomain:
        return name  # the domain is added by fqdn()
    return name[:63].rstrip("-.")


def fqdn(pod: core_v1.Pod, domain: str) -> str:
    """The pod's full name if it has a subdomain, else ""."""
    if not pod.spec.subdomain or pod.spec.host_network:
        return ""
    name = pod.spec.hostname or pod.metadata.name or ""
    return f"{name[:63].rstrip('-.')}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{domain}"


def hosts(pod: core_v1.Pod, ips: Iterable[str], domain: str, node_hosts: str, node_name: str) -> str:
    """/etc/hosts; a pod on the host's network starts with the host's own file."""
    if pod.spec.host_network:
        out = f"{_HEADER} (host network).\n{node_hosts}"
    else:
        out = f"{_HEADER}.\n{_LOCAL}"
        full, short = fqdn(pod, domain), hostname(pod, node_name)
        for ip in ips:
            if ip:
                out += f"{ip}\t{full}\t{short}\n" if full else f"{ip}\t{short}\n"
    aliases = pod.spec.host_aliases or []
    if aliases:
        out += "\n# Entries added by HostAliases.\n"
        for alias in aliases:
            out += "\t".join([alias.ip, *(alias.hostnames or [])]) + "\n"
    return out


def resolv_conf(pod: core_v1.Pod, node_text: str, cluster_dns: Sequence[str], domain: str) -> str:
    """/etc/resolv.conf by dnsPolicy and dnsConfig."""
    policy = pod.spec.dns_policy or "ClusterFirst"
    if policy == "ClusterFirst" and pod.spec.host_network:
        policy = "Default"
    servers, searches, options = _parse(node_text)
    if policy == "None":
        servers, searches, options = [], [], []
    elif policy != "Default" and cluster_dns:
        namespace = pod.metadata.namespace
        own = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain]
        servers, searches, options = list(cluster_dns), own + searches, ["ndots:5"]
    config = pod.spec.dns_config
    if config is not None:
        servers = list(dict.fromkeys([*servers, *(config.nameservers or [])]))
        searches = list(dict.fromkeys([*searches, *(config.searches or [])]))
        named = {o.split(":", 1)[0]: o for o in options}
        for option in config.options or ():
            if option.name:
                named[option.name] = f"{option.name}:{option.value}" if option.value else option.name
        options = list(named.values())
    out = ""
    if searches:
        out += "search " + " ".join(dict.fromkeys(searches)) + "\n"
    out += "".join(f"nameserver {s}\n" for s in servers[:MAX_NAMESERVERS])
    if options:
        out += "options " + " ".join(options) + "\n"
    return out


def _parse(text: str) -> tuple[list[str], list[str], list[str]]:
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = [w for w in words[1:] if w != "."]
        elif words[0] == "options":
            options = words[1:]
    return servers, searches, options
