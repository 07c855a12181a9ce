"""Replica sets: so many pods of one template. :mod:`~controllers.replicaset.plan` decides, ``controller`` does."""
