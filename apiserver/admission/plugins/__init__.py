"""The admission plugins, each under its Kubernetes name."""
