"""Nodes: their health, their taints, what happens to their pods, and their pod CIDRs.

:mod:`~controllers.nodes.health` judges one node, ``zones`` says how fast pods may be evicted, ``lifecycle`` writes conditions
and taints, ``eviction`` deletes pods that do not tolerate the taints, ``podgc`` clears up after nodes that are gone,
``ipam`` hands out pod CIDRs.
"""
