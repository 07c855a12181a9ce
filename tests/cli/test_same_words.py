"""The same command by kubectl and by navarch, on objects that are alike: output, errors and exit code are the same.

Each line runs twice, in two namespaces that are filled alike; so a line may build on those before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Navarch, Ran

OBJECTS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: conf}
data: {a: b}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {key: value}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: nginx, env: [{name: OLD, value: "1"}]}
      - {name: d, image: redis, ports: [{containerPort: 6379}]}
"""

LABEL = """
label cm conf x=1 y=2
label cm conf x=1
label cm conf x- z-
label cm conf y=3
label cm conf y=3 --overwrite y-
label cm conf q
label cm conf
label cm
label
label cm conf a=b,c
label cm conf kube-root-ca.crt --list
label cm conf --list
label cm conf x=1 --dry-run=client
label cm conf x=1 --dry-run=server
label cm conf x=1 --dry-run=sometimes
label cm conf nope x=1
label cm --all all=yes
label cm -l all=yes more=too -o name
label cm conf x=5 --resource-version=1
annotate cm conf x=1
annotate cm conf x=2
annotate cm conf x=2 --overwrite -o jsonpath={.metadata.annotations.x}
annotate cm conf x-
annotate cm conf none-
annotate cm conf
annotate cm conf --list
"""

PATCH = """
patch cm conf
patch cm conf --type=x -p {}
patch cm nope -p {}
patch cm conf -p {}
patch cm conf -p {"data":{"x":"1"}}
patch cm conf -p {"data":{"x":"2"}} --dry-run=server
patch cm conf --type=merge -p {"data":{"a":null}} -o jsonpath={.data}
patch cm conf --type=json -p [{"op":"add","path":"/data/z","value":"3"}]
patch cm conf --type=json -p [{"op":"remove","path":"/data/none"}]
patch deploy web --subresource=scale --type=merge -p {"spec":{"replicas":0}}
patch deploy web --subresource=nonsense -p {}
patch -p {}
patch cm -p {}
patch deploy/web -p {"spec":{"template":{"spec":{"containers":[{"name":"c","image":"nginx:2"}]}}}}
"""

SET = """
set image deploy/web c=nginx:3
set image deploy/web c=nginx:3
set image deploy/web nope=b
set image deploy/web c=
set env deploy/web N-=1 OLD=
set image deploy/web
set image cm/conf a=b
set image deploy/web *=x --dry-run=client
set image deploy/web *=x --dry-run=client -o jsonpath={.spec.template.spec.containers[*].image}
set image deploy web d=redis:2 -o name
set resources deploy/web --limits=cpu=1,memory=64Mi -c c
set resources deploy/web --limits=cpu=1,memory=64Mi -c c
set resources deploy/web --limits=cpu=x
set resources deploy/web
set resources deploy/web --limits=cpu=1 --requests=cpu=2
set env deploy/web A=1 B=2
set env deploy/web A=1
set env deploy/web A- -c c
set env deploy/web --list
set env deploy/web --from=cm/conf --prefix=P_
set env deploy/web --from=secret/hidden
set env deploy/web --list
set env deploy/web OLD- B- A- P_A- KEY-
set env deploy/web --list
"""

NODES = """
cordon n1
cordon n1
uncordon n1
uncordon n1
cordon n1 --dry-run=server
cordon n1 --dry-run=client
drain nope
cordon nope
taint node n1 a=b:PreferNoSchedule
taint node n1 a=b:PreferNoSchedule
taint node n1 a=c:PreferNoSchedule
taint node n1 a=c:PreferNoSchedule --overwrite
taint node n1 a:PreferNoSchedule-
taint node n1 a-
taint node n1 a:NoExecute-
taint node n1 x
taint node n1
taint pod x a=b:NoSchedule
taint node n1 a=b:PreferNoSchedule e=f:PreferNoSchedule
taint node n1 a- c=d:PreferNoSchedule --overwrite
taint node n1 c- e-
taint nodes --all zz=1:PreferNoSchedule --dry-run=client
"""

MAKE = """
run p1
run p1 --image=x --restart=Foo
run p1 --image=x --env=foo
run p1 --image=x --port=80 --expose --env=A=1 --labels=a=b,c=d --restart=Never -- a b
run p1 --image=x
run p2 --image=x --command --dry-run=server -- a b
run p2 --image=x --dry-run=client -o name
get pod p1 -o jsonpath={.spec.containers[0].args}{.spec.restartPolicy}{.metadata.labels}
expose deploy web
expose deploy web --port=80
expose deploy web --port=80
expose deploy web --port=80,443 --name=w4 --protocol=UDP --external-ip=1.2.3.4 --cluster-ip=None --session-affinity=ClientIP
get svc w4 -o jsonpath={.spec.ports}{.spec.selector}{.spec.externalIPs}{.spec.sessionAffinity}{.metadata.labels}
expose svc web --port=90 --name=web3 --target-port=http --type=NodePort --dry-run=client
expose cm conf --port=80
expose
expose pod p1
autoscale deploy web --max=5
autoscale deploy web --max=5
autoscale deploy web --max=5 --min=2 --cpu-percent=70 --name=other
get hpa other -o jsonpath={.spec.maxReplicas}{.spec.minReplicas}{.spec.scaleTargetRef}
autoscale deploy web --min=3 --max=2
autoscale cm conf --max=3
"""

ASK = """
auth can-i get pods
auth can-i get pods -q
auth can-i get foos
auth can-i get nodes
auth can-i fly pods
auth can-i get pods --subresource=log
auth can-i get pods/foo
auth can-i get /healthz
auth can-i --list
auth can-i --list --no-headers
auth can-i * *
auth can-i get pods -A
auth whoami
auth whoami -o yaml
events --types=Foo
events --for pod
events --for deploy/nope
events --types=Warning
api-versions
cluster-info
top nodes
top pods
top node n1 --no-headers
top node nope
top nodes --sort-by=disk
top pod nope
top pods -l a=b
"""

FILES = """
diff
diff -f FOLDER/same.yaml
diff -f FOLDER/changed.yaml
diff -f FOLDER/new.yaml
diff -f FOLDER/secret.yaml
diff --server-side -f FOLDER/new.yaml
diff -f FOLDER/nowhere.yaml
replace
replace -f FOLDER/new.yaml
replace -f FOLDER/changed.yaml
replace -f FOLDER/changed.yaml --dry-run=server
replace -f FOLDER/changed.yaml --force
apply --server-side --force-conflicts -f FOLDER/same.yaml
apply --server-side -f FOLDER/same.yaml
edit cm nope
"""


def plain(text: str) -> str:
    """Without what differs from run to run: times, random names, the name of the program."""
    text = re.sub(r"^(diff|---|\+\+\+) .*(/\S+?)(\t.*)?$", r"\1 \2", text, flags=re.MULTILINE)
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z|uid: \S+|resourceVersion: .*|\b\d+(m\d+)?s\b", "X", text)
    return re.sub(r" +", " ", text.replace("kubectl", "navarch"))


@pytest.fixture
def twins(
    navarch: Navarch, kubectl: Callable[..., Ran], kubeconfig: str, tmp_path: Path
) -> Iterator[Callable[[str], tuple[Ran, Ran]]]:
    """Runs a line by both, each in its own namespace."""
    files = tmp_path / "objects.yaml"
    files.write_text(OBJECTS)
    conf = OBJECTS.split("---")[0]
    (tmp_path / "same.yaml").write_text(conf)
    (tmp_path / "changed.yaml").write_text(conf.replace("a: b", "a: c, d: e"))
    (tmp_path / "new.yaml").write_text(conf.replace("name: conf", "name: conf2"))
    (tmp_path / "secret.yaml").write_text(OBJECTS.split("---")[1].replace("key: value", "key: other, more: text"))
    ours, theirs = navarch.namespace, f"{navarch.namespace[:40]}-k"
    assert kubectl("create", "namespace", theirs).code == 0
    for namespace in (ours, theirs):
        assert kubectl("apply", "-n", namespace, "-f", str(files)).code == 0
        assert kubectl("wait", "-n", namespace, "--for=create", "cm/kube-root-ca.crt", "--timeout=20s").code == 0

    def both(line: str) -> tuple[Ran, Ran]:
        words = line.replace("FOLDER", str(tmp_path)).split(" ")
        at = words.index("--") if "--" in words else len(words)
        answers = []
        for run, namespace in ((navarch, ours), (kubectl, theirs)):
            code, out, err = run(*words[:at], "-n", namespace, *words[at:])
            answers.append(Ran(code, plain(out.replace(theirs, ours)), plain(err.replace(theirs, ours))))
        return answers[0], answers[1]

    yield both
    kubectl("delete", "namespace", theirs, "--wait=false")


@pytest.mark.parametrize(
    "lines", [LABEL, PATCH, SET, MAKE, ASK, FILES], ids=["label", "patch", "set", "make", "ask", "files"]
)
def test_same(twins: Callable[[str], tuple[Ran, Ran]], lines: str) -> None:
    wrong = []
    for line in lines.strip().splitlines():
        ours, theirs = twins(line)
        if theirs.err.startswith("E1") or 'command failed" err=' in theirs.err:  # of a flag that must be set
            said = re.search(r'err="(.*)"$', theirs.err)
            assert said
            theirs = Ran(theirs.code, theirs.out, "error: " + said[1].replace('\\"', '"') + "\n")
        if ours != theirs:
            wrong.append(f"$ {line}\n  navarch: {ours}\n  kubectl: {theirs}")
    assert not wrong, "\n".join(wrong)


def test_same_on_nodes(command: Navarch, kubectl: Callable[..., Ran]) -> None:
    """There is one node only, so each line is run by the one, undone by what follows, and all again by the other."""
    lines = NODES.strip().splitlines()
    ours = [command(*line.split()) for line in lines]
    theirs = [kubectl(*line.split()) for line in lines]
    for line, one, other in zip(lines, ours, theirs, strict=True):
        assert (one.code, plain(one.out), plain(one.err)) == (other.code, plain(other.out), plain(other.err)), line
