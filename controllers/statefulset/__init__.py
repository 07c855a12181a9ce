"""Stateful sets: pods with names that last, in order. :mod:`~controllers.statefulset.plan` decides, ``controller`` does."""
