"""Simulated nodes by the thousand in one process.

They look like nodes to everybody: they register, renew their Leases, run the pods bound to them through the real
agent's state machine (nodeagent.pods.machine) on simulated machines (nodeagent.runtime.hollow), and can lose power or network.
What is shared: one watch of pods, one of nodes, one timer heap, a few writers. No node and no pod has a task.
"""
