"""Devices of a node: which there are (device plugins say so), and which containers have them."""
