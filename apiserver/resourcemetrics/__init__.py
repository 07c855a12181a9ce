"""metrics.k8s.io: what nodes and pods use at present, asked of the agents when somebody asks."""
