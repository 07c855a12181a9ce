"""Where objects live: one small protocol (store.py) and its three implementations."""
