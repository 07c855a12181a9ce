"""Policies as nftables rules: compared with the plain answer of navarch.api.networkpolicies over random clusters, by an
interpreter of the few words that the rules consist of; and the kernel ends with the same rules whatever way it was led."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.namespaces import in_child
from navarch.api.networkpolicies import Cluster, Member, Party, SlimPod, decide, member_of, policy_of
from navarch.api.serialization import decode_yaml
from navarch.api.types import core_v1, meta_v1, networking_v1
from navarch.linux.nftables import Nftables
from navarch.linux.syscalls import CLONE_NEWNET, unshare
from proxy.nftables import RuleSet
from proxy.policyrules import LAYOUT, SKELETON, TABLE, Compiler, Here, merged
from proxy.rules import Rules

NODES = {"n1": "10.9.1.0/24", "n2": "10.9.2.0/24"}
NODE_ADDRESS = {"n1": "10.9.128.11", "n2": "10.9.128.12"}


class Table:
    """One node's table, and what becomes of a packet that is routed through the node."""

    def __init__(self, owners: dict[str, Rules]) -> None:
        self.chains: dict[str, list[str]] = {}
        self.elements: dict[str, dict[str, str]] = {}
        for line in SKELETON.splitlines():
            if found := re.fullmatch(rf"add rule {TABLE} (\S+) (.*)", line):
                self.chains.setdefault(found[1], []).append(found[2])
        for rules in owners.values():
            self.chains |= {name: list(lines) for name, lines in rules.chains.items()}
            for (where, key), verdict in rules.elements.items():
                self.elements.setdefault(where, {})[key] = verdict
        declared = {name for rules in owners.values() for name in rules.sets}
        declared |= set(re.findall(rf"add (?:set|map) {TABLE} (\S+)", SKELETON))
        named = set(re.findall(r"@(\S+)", str(self.chains))) | set(self.elements)
        assert {n.rstrip("',)") for n in named} <= declared, "a set that is not there"

    def passes(self, source, target, protocol="tcp", sport=40000, dport=80, *, reply=False, hook="forward", ct=True):
        facts = {
            "ip saddr": source, "ip daddr": target, "meta l4proto": protocol, "th sport": str(sport), "th dport": str(dport),
            "ct direction": "reply" if reply else "original", "ct state": "established",
        }  # fmt: skip
        if protocol == "icmp":
            facts["th sport"] = facts["th dport"] = "none"
        if not ct:
            facts["ct direction"] = facts["ct state"] = "none"
        return self.walk(hook, facts) != "drop"

    def walk(self, chain, facts, depth=0):
        """accept, drop, or None at the end of the chain."""
        assert depth < 16
        for line in self.chains[chain]:
            verdict = self.line(line, facts)
            word, _, goal = (verdict or "").partition(" ")
            if word in ("accept", "drop"):
                return word
            if word in ("jump", "goto"):
                inner = self.walk(goal, facts, depth + (word == "jump"))
                if inner or word == "goto":
                    return inner
        return None

    def line(self, line, facts):
        """The verdict of a line, "" if the packet is not what it speaks of."""
        field = r"(?:ip [sd]addr|meta l4proto|th [sd]port|ct direction|ct state)"
        while True:
            if re.fullmatch(r"accept|drop|(jump|goto) \S+", line):
                return line
            found = re.match(rf"({field}(?: \. {field})*) (vmap @\S+|(?:!= )?@\S+|{{[^}}]*}}|\w+) ?", line)
            assert found, f"not understood: {line}"
            value, what = " . ".join(facts[f] for f in found[1].split(" . ")), found[2]
            line = line[found.end() :]
            if what.startswith("vmap @"):
                return self.elements.get(what[6:], {}).get(value, "")
            if what.startswith("{"):
                holds = any(within(value, part.strip()) for part in what.strip("{}").split(","))
            elif "@" in what:
                holds = any(within(value, key) for key in self.elements.get(what.split("@")[1], {})) != what.startswith("!=")
            else:
                holds = value == what
            if not holds:
                return ""


def within(value, part):
    if value == part:
        return True
    if "/" in part:
        return ipaddress.ip_address(value) in ipaddress.ip_network(part)
    if re.fullmatch(r"\d+-\d+", part) and value.isdigit():
        low, high = map(int, part.split("-"))
        return low <= int(value) <= high
    return False


def test_the_interpreter_tells_lines_apart():
    table = Table({"x": Rules(chains={"c": ("ip saddr @s meta l4proto tcp th dport { 80, 90-92 } drop",)},
                              sets={"s": ""}, elements={("s", "10.0.0.1"): ""})})  # fmt: skip
    table.chains["forward"] = ["jump c", "accept"]
    assert not table.passes("10.0.0.1", "10.0.0.2", dport=91) and not table.passes("10.0.0.1", "10.0.0.2")
    assert table.passes("10.0.0.1", "10.0.0.2", dport=93) and table.passes("10.0.0.3", "10.0.0.2", dport=91)
    assert table.passes("10.0.0.1", "10.0.0.2", "udp", dport=91)


LABELS = st.dictionaries(st.sampled_from(["app", "team"]), st.sampled_from(["a", "b"]), max_size=2)
EXPRESSION = st.builds(
    lambda key, op, values: meta_v1.LabelSelectorRequirement(
        key=key, operator=op, values=values if op in ("In", "NotIn") else None
    ),
    st.sampled_from(["app", "team"]), st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
    st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2),
)  # fmt: skip
SELECTOR = st.builds(
    lambda labels, expressions: meta_v1.LabelSelector(match_labels=labels or None, match_expressions=expressions or None),
    LABELS, st.lists(EXPRESSION, max_size=1),
)  # fmt: skip
BLOCK = st.builds(
    lambda cidr, holes: networking_v1.IPBlock(cidr=cidr, except_=holes or None),
    st.sampled_from(["0.0.0.0/0", "10.9.0.0/16", "10.9.1.0/24", "10.9.2.4/30", "192.0.2.0/24", "fd00::/8"]),
    st.lists(st.sampled_from(["10.9.1.0/25", "10.9.2.5/32", "192.0.2.8/29", "10.0.0.0/8"]), max_size=2),
)
PEER = st.one_of(
    st.builds(lambda s: networking_v1.NetworkPolicyPeer(pod_selector=s), SELECTOR),
    st.builds(lambda s: networking_v1.NetworkPolicyPeer(namespace_selector=s), SELECTOR),
    st.builds(lambda s, n: networking_v1.NetworkPolicyPeer(pod_selector=s, namespace_selector=n), SELECTOR, SELECTOR),
    st.builds(lambda b: networking_v1.NetworkPolicyPeer(ip_block=b), BLOCK),
)
PORT = st.builds(
    lambda protocol, port, more: networking_v1.NetworkPolicyPort(
        protocol=protocol, port=port, end_port=port + more if more and isinstance(port, int) else None
    ),
    st.sampled_from([None, "TCP", "UDP", "SCTP"]), st.sampled_from([None, 80, 81, 8080, "web", "dns"]),
    st.sampled_from([0, 1, 8000]),
)  # fmt: skip


def rules(cls, peers):
    return st.one_of(
        st.none(),
        st.lists(
            st.builds(
                lambda who, ports: cls(**{peers: who, "ports": ports}),
                st.one_of(st.none(), st.lists(PEER, max_size=2)), st.one_of(st.none(), st.lists(PORT, max_size=3)),
            ),
            max_size=2,
        ),
    )  # fmt: skip


POLICY = st.builds(
    lambda namespace, name, selector, types, ingress, egress: networking_v1.NetworkPolicy(
        metadata=meta_v1.ObjectMeta(name=name, namespace=namespace),
        spec=networking_v1.NetworkPolicySpec(pod_selector=selector, policy_types=types, ingress=ingress, egress=egress),
    ),
    st.sampled_from(["x", "y"]), st.sampled_from(["p", "q", "r"]), SELECTOR,
    st.sampled_from([None, ["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
    rules(networking_v1.NetworkPolicyIngressRule, "from_"), rules(networking_v1.NetworkPolicyEgressRule, "to"),
)  # fmt: skip
PORTS = st.lists(st.sampled_from([("web", "TCP", 80), ("web", "TCP", 8080), ("dns", "UDP", 80)]), max_size=2, unique=True)
POD = st.builds(
    lambda namespace, name, node, number, labels, ports: Member(
        namespace, name, f"10.9.{node[1]}.{number}", node, labels, tuple(ports)
    ),
    st.sampled_from(["x", "y"]), st.sampled_from(["a", "b", "c"]), st.sampled_from(["n1", "n2"]), st.integers(2, 9),
    LABELS, PORTS,
)  # fmt: skip
NAMESPACES = st.fixed_dictionaries({}, optional={"x": LABELS, "y": LABELS})
PACKET = st.tuples(st.sampled_from(["TCP", "UDP", "SCTP", "ICMP"]), st.sampled_from([80, 81, 8080, 8081]))


def settle(pods):
    """The pods by key; of several with one address the first."""
    by_key = {member.key: member for member in pods}
    by_address = {}
    for member in by_key.values():
        by_address.setdefault(member.address, member)
    return {key: member for key, member in by_key.items() if by_address[member.address] is member}


def compilers(policies, namespaces, pods):
    made = {node: Compiler(Here(node, NODES[node], NODE_ADDRESS[node])) for node in NODES}
    for compiler in made.values():
        for name, labels in namespaces.items():
            compiler.put_namespace(name, labels)
        for policy in policies:
            compiler.put_policy(f"{policy.namespace}/{policy.name}", policy)
        for member in pods:
            compiler.put_pod(member.key, member)
    return made


def tables(made):
    return {node: Table(compiler.everything()) for node, compiler in made.items()}


def reaches(nodes, source, target, protocol, port, *, reply=False, ct=True):
    """Whether a packet passes every node that routes it; as an answer it goes the other way."""
    protocol = protocol.lower()
    ends = (target, source) if reply else (source, target)
    ports = {"sport": port, "dport": 40000} if reply else {"sport": 40000, "dport": port}
    through = dict.fromkeys(p.member.node for p in (source, target) if p.member is not None)
    return all(
        nodes[node].passes(ends[0].address, ends[1].address, protocol, **ports, reply=reply, ct=ct) for node in through
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(POLICY, max_size=4), NAMESPACES, st.lists(POD, min_size=2, max_size=5), PACKET)
def test_the_rules_say_what_the_policies_say(objects, namespaces, pods, packet):
    policies = list({p.key: p for p in map(policy_of, objects)}.values())
    pods = list(settle(pods).values())
    nodes = tables(compilers(policies, namespaces, pods))
    cluster = Cluster(policies, namespaces)
    protocol, port = packet
    outside = [Party("192.0.2.9"), Party("10.9.128.11", node="n1")]
    for source in [*map(Party.pod, pods), *outside]:
        for target in [*map(Party.pod, pods), *outside]:
            if source.member is None and target.member is None:
                continue
            at_home = {p.node for p in (source, target) if p.node} & {p.member.node for p in (source, target) if p.member}
            if at_home:
                continue  # a node and its own pods: the hooks are input and output, see below
            wanted = decide(cluster, source, target, protocol, port if protocol != "ICMP" else 0).allowed
            assert reaches(nodes, source, target, protocol, port) == wanted, (source, target)
            assert reaches(nodes, source, target, protocol, port, reply=True) == wanted, "answers"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(POLICY, POD, st.tuples(st.sampled_from(["x", "y"]), st.one_of(st.none(), LABELS)),
                          st.sampled_from(["x/p", "x/q", "y/p", "pod x/a", "pod x/b", "pod y/a"])), max_size=14),
       st.integers(1, 4))  # fmt: skip
def test_any_sequence_of_changes_ends_where_a_fresh_start_does(steps, batch):
    compiler, owners = Compiler(Here("n1", NODES["n1"], NODE_ADDRESS["n1"])), {}
    for number, step in enumerate([*steps, None]):
        match step:
            case networking_v1.NetworkPolicy():
                compiler.put_policy(policy_of(step).key, policy_of(step))
            case Member():
                compiler.put_pod(step.key, step)
            case (name, labels):
                compiler.put_namespace(name, labels)
            case str() if step.startswith("pod "):
                compiler.put_pod(step[4:], None)
            case str():
                compiler.put_policy(step, None)
        if number % batch == 0 or step is None:
            owners |= compiler.changes()
            assert not compiler.changes()
    assert {owner: rules for owner, rules in owners.items() if rules != Rules()} == compiler.everything()
    Table(owners)


def pod(name="a", number=2, node="n1", namespace="x", labels=None, ports=()):
    return Member(namespace, name, f"10.9.{node[1]}.{number}", node, labels or {}, tuple(ports))


def policy(text, namespace="x", name="p"):
    (tree,) = decode_yaml(text)
    spec = msgspec.convert(tree, networking_v1.NetworkPolicySpec)
    return policy_of(networking_v1.NetworkPolicy(metadata=meta_v1.ObjectMeta(name=name, namespace=namespace), spec=spec))


DENY_ALL = "{podSelector: {}, policyTypes: [Ingress, Egress]}"


def test_a_new_pod_is_cut_off_until_its_policies_are_in_force():
    made = compilers([policy(DENY_ALL, "y")], {}, [pod("a")])["n1"]
    table = Table(made.everything())
    assert table.passes("10.9.1.2", "10.9.2.9") and table.passes("192.0.2.1", "10.9.1.2")
    assert not table.passes("10.9.1.3", "10.9.2.9") and not table.passes("192.0.2.1", "10.9.1.3")
    assert not table.passes("10.9.1.3", NODE_ADDRESS["n1"], "udp", dport=53, hook="input")
    made.put_policy("y/p", None)
    assert made.everything() == {} and Table({}).passes("10.9.1.3", "10.9.2.9"), "without policies nobody waits"


def test_a_pod_and_its_node_reach_each_other_and_the_resolver_is_a_pod():
    ask = ("10.9.1.2", NODE_ADDRESS["n1"], "udp")
    closed = Table(compilers([policy(DENY_ALL)], {}, [pod("a")])["n1"].everything())
    assert closed.passes("10.9.1.2", NODE_ADDRESS["n1"], dport=10250, hook="input")
    assert not closed.passes(*ask, dport=53, hook="input") and closed.passes(*ask, dport=54, hook="input")
    for rule in (
        "to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]",
        "ports: [{port: 53, protocol: UDP}]",
        "to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}], "
        "ports: [{port: dns, protocol: UDP}]",
    ):
        names = {"kube-system": {"kubernetes.io/metadata.name": "kube-system"}}
        text = f"{{podSelector: {{}}, policyTypes: [Egress], egress: [{{{rule}}}]}}"
        table = Table(compilers([policy(text)], names, [pod("a")])["n1"].everything())
        assert table.passes(*ask, dport=53, hook="input"), rule
        assert not table.passes("10.9.1.2", "192.0.2.1", "tcp", dport=80), rule


def test_answers_are_judged_by_the_port_that_was_asked():
    """Random clusters seldom have an answer that hangs on its port alone."""
    server, client = pod("a", ports=[("web", "TCP", 8080)]), pod("b", 3, "n2")
    for direction in ("Ingress", "Egress"):
        for port in ("80", "web", "7000, endPort: 9000"):
            who = "b" if direction == "Egress" else "a"
            text = f"{direction.lower()}: [{{ports: [{{port: {port}}}]}}]"
            made = policy(f"{{podSelector: {{matchLabels: {{me: {who}}}}}, policyTypes: [{direction}], {text}}}")
            pods = [replace(one, labels={"me": one.name}) for one in (server, client)]
            nodes = tables(compilers([made], {"x": {}}, pods))
            good, (one, two) = 80 if port == "80" else 8080, map(Party.pod, pods)
            for reply in (False, True):
                assert reaches(nodes, two, one, "TCP", good, reply=reply), (direction, port, reply)
                assert not reaches(nodes, two, one, "TCP", 443, reply=reply), (direction, port, reply)
                assert not reaches(nodes, two, one, "UDP", good, reply=reply), (direction, port, reply)


def test_packets_that_conntrack_cannot_place_end_at_isolated_pods_only():
    nodes = tables(compilers([policy(DENY_ALL)], {}, [pod("a"), pod("b", 3, namespace="y")]))
    assert not nodes["n1"].passes("10.9.1.2", "10.9.2.9", ct=False)
    assert not nodes["n1"].passes("10.9.2.9", "10.9.1.2", ct=False)
    assert nodes["n1"].passes("10.9.2.9", "10.9.1.3", ct=False)


def test_one_pod_changes_a_few_elements_and_no_chain():
    many = [
        policy("{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {role: client}}}]}]}",
               name=f"p{n}")
        for n in range(1000)
    ]  # fmt: skip
    pods = [pod(f"w{n}", n + 2, "n1", labels={"app": "web"}) for n in range(100)]
    compiler = compilers(many, {}, pods)["n1"]
    rules = RuleSet(LAYOUT)
    rules.change(compiler.changes())
    compiler.put_pod("x/new", pod("new", 200, "n2", labels={"role": "client"}))
    assert [line.split(" ")[:2] for line in rules.change(compiler.changes()).splitlines()] == [["add", "element"]]
    compiler.put_pod("x/w5", pod("w5", 7, "n1", labels={"app": "web", "version": "2"}))
    assert rules.change(compiler.changes()) == ""
    compiler.put_pod("x/w5", None)
    commands = rules.change(compiler.changes()).splitlines()
    assert len(commands) == 5, "handled, isolated, itself, in, in-reply"
    assert all(command.startswith("delete element") for command in commands)


def test_what_pods_are_to_policies():
    made = core_v1.Pod(
        metadata=meta_v1.ObjectMeta(name="a", namespace="x", labels={"app": "a"}),
        spec=core_v1.PodSpec(
            node_name="n1",
            containers=[core_v1.Container(name="c", ports=[
                core_v1.ContainerPort(container_port=80, name="web"), core_v1.ContainerPort(container_port=81)])],
            init_containers=[
                core_v1.Container(name="i", ports=[core_v1.ContainerPort(container_port=82, name="once")]),
                core_v1.Container(name="s", restart_policy="Always",
                                  ports=[core_v1.ContainerPort(container_port=83, name="side", protocol="UDP")]),
            ],
        ),
    )  # fmt: skip
    assert member_of(made) is None
    made.status.pod_ip = "10.9.1.2"
    assert member_of(made) == Member("x", "a", "10.9.1.2", "n1", {"app": "a"}, (("side", "UDP", 83), ("web", "TCP", 80)))
    slim = msgspec.json.decode(msgspec.json.encode(made), type=SlimPod)
    assert member_of(slim) == member_of(made)
    made.status.phase = "Succeeded"
    assert member_of(made) is None
    made.status.phase, made.spec.host_network = "Running", True
    assert member_of(made) is None


def test_ranges_neither_overlap_nor_touch():
    assert merged([(80, 80), (8000, 9000), (81, 90), (8500, 9500), (65535, 65535)]) == [(80, 90), (8000, 9500), (65535, 65535)]


@pytest.mark.root
@settings(max_examples=20, deadline=None)
@given(st.lists(st.one_of(POLICY, POD, st.sampled_from(["x/p", "x/q", "y/p", "pod x/a", "pod y/a"])), max_size=10))
def test_the_kernel_takes_it_and_ends_the_same(steps):
    compiler, moving = Compiler(Here("n1", NODES["n1"], NODE_ADDRESS["n1"])), RuleSet(LAYOUT)
    commands = [moving.full()]
    for step in steps:
        if isinstance(step, str):
            compiler.put_pod(step[4:], None) if step.startswith("pod ") else compiler.put_policy(step, None)
        elif isinstance(step, Member):
            compiler.put_pod(step.key, step)
        else:
            compiler.put_policy(policy_of(step).key, policy_of(step))
        commands.append(moving.change(compiler.changes()))
    fresh = RuleSet(LAYOUT)
    fresh.change(compiler.everything())

    def kernel(texts):
        def work():
            unshare(CLONE_NEWNET)
            nft = Nftables()
            for text in filter(None, texts):
                nft.run(text)
            return sorted(re.split(r"[,\n]", nft.run(f"list table {TABLE}").replace(" ", "")))

        return in_child(work)

    assert kernel(commands) == kernel([fresh.full()])
