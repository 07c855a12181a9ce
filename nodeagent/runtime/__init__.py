"""Container runtimes behind one protocol (runtime.py) with CRI's semantics."""
