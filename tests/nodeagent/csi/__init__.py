"""CSI volumes on a node, with the example's driver and real mounts."""
