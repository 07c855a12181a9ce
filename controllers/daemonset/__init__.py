"""Daemon sets: one pod on every node that takes it. :mod:`~controllers.daemonset.plan` decides, ``controller`` does."""
