"""Container images: names, a store that all nodes of a machine share, import, export, pull, and a small builder."""
