"""The node agent: runs the pods that are bound to its node, and reports what became of them."""
