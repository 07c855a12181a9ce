"""The twin of a cluster: the same objects, the same pods running, the real components, on virtual time."""
