"""gRPC with programs on the same machine: plugins of nodes and their helpers."""

import os

# grpcio's own way with fork stops all of its threads before one and starts them after it. The agent forks to execute programs
# (and tests fork into nodes): none of these children speaks gRPC. It is read when grpc is imported, so it stands here.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
