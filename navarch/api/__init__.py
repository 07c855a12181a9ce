"""The Kubernetes object model and the rules that more than one component needs. Pure: no I/O, no clock, no chance."""
