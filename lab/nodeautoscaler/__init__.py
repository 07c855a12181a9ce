"""A simulated Cluster Autoscaler: it adds and removes hollow nodes, by groups, as Kubernetes' own does with machines.

What decides is pure (room, scaleup, scaledown); what does is in autoscaler.py. Fits and refusals are the scheduler's own.
"""
