"""CSI: volumes that a driver on the node mounts. ``drivers`` knows which there are, ``mounter`` tells them what to do."""
