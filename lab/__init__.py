"""Clusters made of the other rooms: real nodes in namespaces of one machine, and simulated ones on virtual time."""
