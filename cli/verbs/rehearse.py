"""``navarch rehearse``: what a change would do to a cluster, tried on a twin of it. The cluster itself is only read.

Exit codes: 0 all that is asserted is true or, if nothing is, the change comes to rest; 1 not; 2 the change is wrong, or the
cluster could not be asked.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

from cli import outfiles
from cli.options import App, Argument, Option
from cli.verb import Where, verb

if TYPE_CHECKING:
    from cli.session import Session
    from lab.twin.changes import Change
    from lab.twin.cluster import Settings
    from lab.twin.rehearsal import Rehearsed
    from lab.twin.snapshot import Snapshot

app = App()
WRONG = 2


@verb(app)
def rehearse(
    where: Where,
    words: Annotated[
        list[str] | None, Argument("CHANGE...", help="As for kubectl: drain n1; scale deploy/web.")
    ] = None,
    filenames: Annotated[list[str] | None, Option("-f", "--filename", metavar="FILE", help="Objects to apply.")] = None,
    replicas: Annotated[int | None, Option("--replicas", metavar="N", help="Of scale.")] = None,
    lose: Annotated[list[str] | None, Option("--lose", metavar="NODE", help="A node that loses its power.")] = None,
    steps: Annotated[Path | None, Option("--steps", metavar="FILE", help="Steps, as in an experiment's file.")] = None,
    for_: Annotated[str, Option("--for", metavar="TIME", help="How long to wait for rest.")] = "30m",
    seeds: Annotated[
        int, Option("--seeds", metavar="N", help="How often it is played, with other chances.", min=1)
    ] = 3,
    jobs: Annotated[int, Option("--jobs", metavar="N", help="Processes; default: all cores.")] = 0,
    asserts: Annotated[list[str] | None, Option("--assert", metavar="EXPR", help="Such as 'evicted == 0'.")] = None,
    output: Annotated[str, Option("-o", "--output", metavar="json", help="All findings, for programs.")] = "",
    report: Annotated[Path | None, Option("--report", metavar="FILE.html", help="Write a page with plots.")] = None,
    history: Annotated[Path | None, Option("--history", metavar="RECORDING", help="Learn times from it, too.")] = None,
    calibration: Annotated[
        Path | None, Option("--calibration", metavar="FILE", help="Times where nothing is known; see calibrate.")
    ] = None,
    sets: Annotated[
        list[str] | None, Option("--set", metavar="NAME=VALUE", help="A setting of the cluster, such as of `up --set`.")
    ] = None,
    scheduler: Annotated[
        Path | None, Option("--scheduler-config", metavar="FILE", help="The cluster's KubeSchedulerConfiguration.")
    ] = None,
) -> None:
    """Tell what a change would do, on a twin of the cluster: navarch rehearse drain node-2."""
    from lab.experiments.expressions import ExpressionError
    from lab.twin import answer

    try:
        expressions = [answer.checked(text) for text in asserts or ()]
    except ExpressionError as error:
        _wrong(str(error))
    if output not in ("", "json"):
        _wrong(f"-o {output}: only json is known")
    seconds = _seconds(for_)
    outfiles.check(report, WRONG)
    snapshot, namespace = _snapshot(where)
    change = _change(snapshot, namespace, words, filenames, replicas, lose, steps)
    settings = _settings(where, sets, scheduler)
    done, unknowns = _play(snapshot, change, seconds, range(1, seeds + 1), jobs, history, calibration, settings)
    failed = [one for one in done if one.findings is None]
    for one in failed:
        print(f"error: seed {one.seed} failed: {one.error}", file=sys.stderr)
    if output == "json":
        import msgspec

        runs = [{"seed": r.seed, "error": r.error, "findings": msgspec.to_builtins(r.findings)} for r in done]
        print(
            msgspec.json.format(
                msgspec.json.encode({"change": change.words, "runs": runs, "unknown": unknowns})
            ).decode()
        )
    listed = answer.lines(done, seconds)
    if not output:
        print(f"{change.words}: {len(done)} runs on a twin of {snapshot.source}")
        print("\n".join(listed))
    if unknowns and not output:
        print("\nthe twin does not know:")
        print("\n".join(f"  {line}" for line in unknowns))
    if report is not None:
        from lab.twin.page import page

        outfiles.write(report, page(change.words, snapshot.source, done, listed, unknowns), WRONG)
        print(f"\nreport: {report}", file=sys.stderr)
    rests = all(one.findings is not None and one.findings.seconds is not None for one in done)
    good = not failed and (rests or bool(expressions))  # who asserts something says what matters
    for expression in expressions:
        try:
            wrong = answer.verdicts(expression, done)
        except ExpressionError as error:
            _wrong(str(error))
        good = good and not wrong
        shown = ", ".join(f"{k} = {v}" for k, v in wrong[0][1].items()) if wrong else ""
        verdict = (
            f"NOT TRUE  {expression.text}  (seed {wrong[0][0]}: {shown})" if wrong else f"true      {expression.text}"
        )
        print(verdict, file=sys.stderr if output else sys.stdout)
    raise SystemExit(0 if good else 1)


def _wrong(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    raise SystemExit(WRONG)


def _seconds(text: str) -> float:
    from navarch.api.durations import DurationError, parse_seconds

    try:
        return parse_seconds(text)
    except DurationError as error:
        _wrong(f"--for {text}: {error}")


def _snapshot(where: Where) -> tuple[Snapshot, str]:
    """Reads the cluster. Ends the command if that fails, with another code than that of a change that does not come to rest."""
    from lab.twin.snapshot import take
    from navarch.client.client import Client

    shown = sys.stderr.isatty()
    result: list[tuple[Snapshot, str]] = []

    def say(text: str) -> None:
        if shown:
            print(f"\r\033[Kreading {text}", end="", file=sys.stderr, flush=True)

    async def read(session: Session) -> None:
        client = Client(
            session.client.transport, session.world, "navarch"
        )  # warnings on old kinds are not for who only reads
        result.append((await take(client, session.config.server, say), session.namespace))

    try:
        where.run(read)
    except SystemExit as end:
        if shown:
            print("\r\033[K", end="", file=sys.stderr)
        if not result or end.code:
            raise SystemExit(WRONG if end.code == 1 else end.code) from None
    return result[0]


def _change(
    snapshot: Snapshot, namespace: str, words: list[str] | None, filenames: list[str] | None, replicas: int | None,
    lose: list[str] | None, steps: Path | None,
) -> Change:  # fmt: skip
    from lab.twin import changes

    try:
        parts = []
        if filenames:
            parts.append(changes.from_files({name: _text(name) for name in filenames}, namespace))
        if words:
            parts.append(changes.from_words(words, snapshot, namespace, replicas))
        if lose:
            parts.append(changes.lose(lose, snapshot))
        if steps is not None:
            parts.append(changes.from_steps(steps))
        return changes.together(parts)
    except changes.ChangeError as error:
        _wrong(str(error))


def _text(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    path = Path(name)
    try:
        if path.is_dir():
            return "\n---\n".join(
                p.read_text() for p in sorted(path.iterdir()) if p.suffix in (".yaml", ".yml", ".json")
            )
        return path.read_text()
    except OSError as error:
        _wrong(f"{name}: {error.strerror}")


def _settings(where: Where, sets: list[str] | None, scheduler: Path | None) -> Settings:
    """Settings of the twin: those of the lab, if the cluster is one of this home, then those of the command line."""
    from lab.components import all_settings
    from lab.paths import LabRecord
    from lab.twin.cluster import LEASES, Settings
    from navarch.client.kubeconfig import paths
    from scheduler.framework.config import SchedulerConfig

    settings = Settings()
    record = LabRecord.load(paths(where.kubeconfig_path())[0].with_name("lab.json"))
    if record is not None:
        for name, value in all_settings(record).items():
            if name.partition(".")[0] in ("controllers", "apiserver") or name == LEASES:
                settings.values[name] = value
    for text in sets or ():
        name, equals, value = text.partition("=")
        if not equals:
            _wrong(f"--set {text}: expected NAME=VALUE, such as controllers.node-monitor-grace-period=20s")
        settings.values[name] = value
    try:
        settings.check()
        if scheduler is not None:
            settings.scheduler = SchedulerConfig.load(scheduler.read_text())
    except (OSError, ValueError) as error:
        _wrong(outfiles.words(error))
    if record is None and not sets:
        settings.assumed = True
    return settings


def _play(
    snapshot: Snapshot, change: Change, seconds: float, seeds: range, jobs: int, history: Path | None,
    calibration: Path | None, settings: Settings,
) -> tuple[list[Rehearsed], list[str]]:  # fmt: skip
    """Plays the change; gives the runs, and what the twin does not know of this cluster."""
    from lab.experiments.recording import Recording
    from lab.twin.cluster import unknown
    from lab.twin.learning import learn
    from lab.twin.rehearsal import rehearse as play

    try:
        past = Recording.load(history) if history else None
        learned = learn(snapshot, past)
        if calibration is not None:
            learned.calibrate(calibration)
    except (OSError, ValueError) as error:
        _wrong(outfiles.words(error))
    shown, count = sys.stderr.isatty(), 0

    def progress(one: Rehearsed) -> None:
        nonlocal count
        count += 1
        if shown:
            end = "" if count < len(seeds) else "\r\033[K"
            print(f"\r\033[Kseed {one.seed}: {count}/{len(seeds)}", end=end, file=sys.stderr, flush=True)

    try:
        done = play(
            snapshot, learned, change, seeds=seeds, seconds=seconds, jobs=jobs or os.cpu_count() or 1, settings=settings,
            progress=progress,
        )  # fmt: skip
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    touched = {name for one in done if one.findings is not None for name in one.findings.workloads}
    unknowns = [*unknown(snapshot), *(f"not applied: {what}" for what in change.skipped)]
    unknowns += learned.explained(touched, change.images)
    if settings.assumed:
        unknowns.append("settings of the components are not in the API: Kubernetes' defaults are assumed (see --set)")
    return done, unknowns
