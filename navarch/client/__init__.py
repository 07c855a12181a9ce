"""The client library: how components and users talk to an API server and follow what changes there.

Read in this order: wire and transport (bytes there and back), client (typed verbs), watch, informer (a cache kept
current by list and watch), queue (what to look at next), events, leader.
"""
