"""Features of Linux that Python lacks: system calls and libnftables, each bound once. Imports nothing of navarch."""
