"""The controllers: each brings what is observed closer to what is desired, one object at a time.

A controller is a pure plan (what is observed plus ``now`` gives what to do) and a shell that does it
(:mod:`controllers.controller`: informers, a queue of keys, ``reconcile(key)``). :mod:`controllers.manager` runs them
all in one process.
"""
