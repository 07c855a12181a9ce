"""Volumes: folders on the node that containers see. ``payload`` decides what is in them, ``manager`` makes them."""
