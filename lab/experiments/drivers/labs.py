"""The stages of the wall clock: a new lab for each run, which is gone afterwards.

A lab comes up in about three seconds and goes in two; so nothing of one run can be met by the next, and there is nothing to be
cleaned in between.
"""

from __future__ import annotations

from typing import Any

from lab.experiments.drivers.hand import Hand
from lab.experiments.drivers.hollow import Hollow
from lab.experiments.drivers.modelled import tells_metrics
from lab.experiments.drivers.real import Real, lab_node
from lab.experiments.drivers.stage import Outcome
from lab.experiments.inputs import nodes_of
from lab.experiments.limits import missing_images
from lab.experiments.model import Experiment
from lab.experiments.run import Run
from lab.experiments.schema import WrongFile
from navarch.api.times import format_micro
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.transport import connect
from navarch.world import RealWorld, World


class LabStage:
    """Of mode ``hollow`` or ``real``."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def __enter__(self) -> LabStage:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, experiment: Experiment, seed: int) -> Outcome:
        run = Run(experiment, seed, **about(self.mode))
        self.play(run)
        return run.outcome()

    def play(self, run: Run) -> None:
        """Plays a run on a lab of its own. Raises StepFailed, LabError, ValueError."""
        if problems := list(missing_images(run.experiment)):
            raise WrongFile(problems)
        settings, files = settings_of(run.experiment)
        real = self.mode == "real"
        nodes = [lab_node(spec) for spec in nodes_of(run.experiment)] if real else []
        with Hand(progress=run.say) as hand:
            metrics = tells_metrics(run.experiment)
            access = hand.ask("up", nodes=nodes, settings=settings, files=files, custom_metrics=metrics)
            world = RealWorld()
            world.run(lambda: play(run, hand, world, access, Real if real else Hollow))


def about(mode: str) -> dict[str, str]:
    """More for the header of a recording, of a run on the wall clock that begins now."""
    return {"mode": mode, "start": format_micro(RealWorld(brief=True).now())}


def settings_of(experiment: Experiment) -> tuple[dict[str, str], dict[str, str]]:
    """The settings of a lab's components, and by setting the texts of files that they shall name."""
    part = experiment.cluster
    settings = {name: str(value) for name, value in part.set.items()}
    settings["scheduler.tie-break"] = part.scheduler.tie_break
    if part.scheduler.plugins:
        settings["scheduler.plugin"] = ",".join(part.scheduler.plugins)
    return settings, {"scheduler.config": part.scheduler.config} if part.scheduler.config else {}


async def play(run: Run, hand: Hand, world: World, access: dict[str, Any], driver: type[Real] | type[Hollow]) -> None:
    """Plays a run on a lab that is up. Raises StepFailed, LabError, ValueError."""
    client = Client(connect(kubeconfig.load(access["kubeconfig"])), world, "navarch experiment")
    try:
        async with world.task_group() as group:
            one = driver(run, hand, world, client, group, access)
            await one.follow()
            await one.prepare()
            run.say("until all nodes can be scheduled to")
            await one.settle()
            group.start(one.tell_time(), "time")
            group.start(one.watch_machine(), "machine")
            await run.scenario(one)
            group.cancel()
    finally:
        await client.close()
