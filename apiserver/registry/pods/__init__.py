"""Pods: defaults, columns, validation and update rules, each in its own file; :mod:`.strategy` joins them."""
