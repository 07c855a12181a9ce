"""Places a trace of GPU pods under several policies, as "Beware of Fragmentation" (USENIX ATC 2023) does, and compares with it.

    python deploy/experiments/openb/run.py --nodes openb_node_list_gpu_node.csv --pods openb_pod_list_default.csv --out DIR

The files are Alibaba's openb trace; without them, a small made-up trace beside this file is taken. Pods arrive one by one in a
random order and none leaves, until 130 % of all GPUs are asked for. Writes curves.csv, table.csv and curves.svg.
"""

import argparse
import collections
import csv
import random
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[2])]

from devices import MILLI  # noqa: E402
from policies import POLICIES  # noqa: E402

from lab import Cycle, only  # noqa: E402
from nodeagent.hollow.objects import NodeSpec  # noqa: E402

TIES = {"Random": "random"}  # else one order of all nodes that the seed draws, as in the paper's experiment
AT = (60, 80, 90, 100, 110, 120, 130)
PUBLISHED = {  # mean and deviation over ten seeds, GPU allocation in per cent, at AT
    "Random": ((59.73, 0.22), (78.66, 0.40), (85.02, 0.29), (86.30, 0.33), (86.88, 0.34), (87.28, 0.31), (87.47, 0.32)),
    "DotProd": ((60.00, 0.02), (80.02, 0.02), (89.98, 0.05), (90.62, 0.19), (90.70, 0.20), (90.77, 0.20), (90.85, 0.20)),
    "GpuClustering": ((60.00, 0.02), (80.02, 0.02), (89.98, 0.05), (91.65, 0.61), (91.73, 0.63), (91.80, 0.62), (91.88, 0.62)),
    "GpuPacking": ((60.00, 0.02), (80.02, 0.02), (89.98, 0.05), (91.78, 0.53), (91.86, 0.55), (91.92, 0.55), (92.00, 0.54)),
    "BestFit": ((60.00, 0.02), (80.02, 0.02), (89.99, 0.04), (92.86, 0.14), (92.94, 0.13), (93.00, 0.14), (93.08, 0.13)),
    "FGD": ((60.00, 0.02), (80.02, 0.02), (89.98, 0.05), (95.23, 0.11), (95.30, 0.10), (95.35, 0.10), (95.39, 0.08)),
}


def nodes_of(path):
    with open(path) as file:
        return [
            NodeSpec(r["sn"], f"{r['cpu_milli']}m", f"{r['memory_mib']}Mi", 1000, resources={MILLI: f"{r['gpu']}000"})
            for r in csv.DictReader(file)
        ]


def pods_of(path):
    """(cpu in milli, memory in MiB, GPUs in milli) of each."""
    with open(path) as file:
        return [
            (int(r["cpu_milli"]), int(r["memory_mib"]), int(r["num_gpu"]) * int(r["gpu_milli"])) for r in csv.DictReader(file)
        ]


def arrivals(pods, wanted, seed):
    chance = random.Random(seed)
    listed = chance.sample(pods, len(pods))
    asked = sum(gpu for _, _, gpu in listed)
    while asked < wanted:
        listed.append(chance.choice(pods))
        asked += listed[-1][2]
    return listed


def one(policy, seed, nodes, pods, ties):
    """One curve: per cent of demand that arrived -> mean per cent of GPUs that are allocated."""
    specs, listed = nodes_of(nodes), pods_of(pods)
    made = POLICIES[policy]()
    if policy == "FGD":
        made.target([(cpu, gpu) for cpu, _, gpu in listed])
    began = time.process_time()
    cycle = Cycle(specs, only(made), seed=seed, ties=ties or TIES.get(policy, "shuffled"))
    total = cycle.allocatable(MILLI)
    curve, arrived, allocated = collections.defaultdict(list), 0, 0
    for n, (cpu, memory, gpu) in enumerate(arrivals(listed, 1.3 * total, seed)):
        requests = {"cpu": f"{cpu}m", "memory": f"{memory}Mi", **({MILLI: str(gpu)} if gpu else {})}
        container = {"name": "c", "image": "c:1", "resources": {"requests": requests}}
        pod = {"metadata": {"name": f"p{n}", "namespace": "default", "uid": str(n)}, "spec": {"containers": [container]}}
        arrived += gpu
        allocated += gpu if cycle.place(pod).node else 0
        curve[round(100 * arrived / total)].append(100 * allocated / total)
    return policy, seed, {at: statistics.fmean(found) for at, found in curve.items()}, time.process_time() - began, n + 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", default=str(HERE / "made-up-nodes.csv"))
    parser.add_argument("--pods", default=str(HERE / "made-up-pods.csv"))
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--ties", default="", help="random, name or shuffled; default: shuffled, but random for Random")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", default="results/openb")
    options = parser.parse_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    curves = collections.defaultdict(list)
    with ProcessPoolExecutor(options.jobs) as pool:
        futures = [
            pool.submit(one, policy, seed, options.nodes, options.pods, options.ties)
            for policy in options.policies.split(",")
            for seed in range(1, options.seeds + 1)
        ]
        for future in futures:
            policy, seed, curve, cpu, pods = future.result()
            curves[policy].append(curve)
            told = f"{curve.get(100, 0):6.2f} % at 100 %, {cpu / pods * 1000:.2f} ms of CPU a pod"
            print(f"{policy:14} seed {seed:3}: {told}", flush=True)
    write(out, curves, "openb" in options.nodes.lower())


def write(out, curves, known):
    with open(out / "curves.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["policy", "run", "arrived", "allocated"])
        for policy, found in curves.items():
            for n, curve in enumerate(found, 1):
                writer.writerows([policy, n, at, round(v, 6)] for at, v in sorted(curve.items()))
    rows = []
    for policy, found in curves.items():
        for n, at in enumerate(AT):
            values = [c[at] for c in found if at in c]
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                rows.append([policy, at, statistics.fmean(values), spread, *(PUBLISHED[policy][n] if known else ())])
    with open(out / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["policy", "arrived", "mean", "deviation", "published", "published_deviation"])
        writer.writerows(rows)
    for policy, at, mean, spread, *more in rows:
        beside = f"   published {more[0]:.2f} ± {more[1]:.2f}, difference {mean - more[0]:+.2f}" if more else ""
        print(f"{policy:14} at {at:3} %: {mean:.2f} ± {spread:.2f}{beside}")
    try:
        plot(out, curves)
    except ImportError as error:
        print(f"no plot: {error.name} is missing")


def plot(out, curves):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "openb"
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for policy, found in curves.items():
        places = sorted(set.intersection(*(set(c) for c in found)))
        axis.plot(places, [statistics.fmean(c[at] for c in found) for at in places], label=policy)
        low, high = ([pick(c[at] for c in found) for at in places] for pick in (min, max))
        axis.fill_between(places, low, high, alpha=0.2)
    axis.plot([0, 100], [0, 100], color="#aaaaaa", linestyle=":")
    axis.set_xlabel("GPUs asked for so far, % of the cluster's")
    axis.set_ylabel("GPUs allocated, %")
    axis.legend(frameon=False)
    axis.grid(alpha=0.3)
    figure.savefig(out / "curves.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
