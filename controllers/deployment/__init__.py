"""Deployments: replica sets of successive pod templates, and the way from one to the next.

Reading order: :mod:`~controllers.deployment.sizes` (the arithmetic of a rolling update),
:mod:`~controllers.deployment.revisions` (which replica set is the new one; revision numbers),
:mod:`~controllers.deployment.status` (status and conditions), :mod:`~controllers.deployment.plan` (all of it put together:
a Deployment and its replica sets in, actions out), :mod:`~controllers.deployment.controller` (the shell).
"""
