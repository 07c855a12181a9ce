"""Garbage collection: objects whose owners are gone go too.

:mod:`~controllers.garbage.graph` knows who owns whom (pure: events in, work out), ``collector`` does the work: every
decision to delete is made on a fresh read of the object and its owners, never on the graph alone.
"""
