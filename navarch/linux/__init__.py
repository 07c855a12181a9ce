"""What Linux offers and Python does not: system calls and libnftables, each bound once. Imports nothing of navarch."""
