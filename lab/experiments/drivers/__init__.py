"""Drivers: the clusters that an experiment is played on, behind one protocol.

An experiment says *what* shall happen. :class:`lab.experiments.run.Run` plays it: workload, steps, conditions, marks and the
recording are the same everywhere, and are written once, against the protocol :class:`lab.experiments.drivers.driver.Driver`.
A driver is *who does it*, on one cluster that is up:

    client, world         any request; time, sleep and chance
    apply, run_until, ... waiting, and being up to date with what the cluster stores
    power_off, crash ...  a method for each fault that it can do, and one that ends it (driver.UNDO)
    load                  requests to a service, sampled
    gauges                plugins of the scheduler whose own numbers can be read

A *stage* makes drivers: it starts a cluster as the file describes it, hears of every change of every object and tells the run
(``run.changed``), awaits ``run.scenario(driver)``, and puts the cluster away. It may keep a cluster for the next run.

    simulated   virtual.py: everything in this process on virtual time (lab/simulation); load is a model (queueing.py)
    cycle       lab/experiments/cycles.py: no cluster at all, so no driver; a stage of its own

A fault that a driver has no method for cannot be done in its mode: the check of the file refuses it with its path
(``modes.refusals``). So a new fault is a method here, an entry in UNDO, and a target in lab/experiments/deeds.py.
"""
