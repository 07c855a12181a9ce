"""The kinds' own parts: a file a resource, a folder an API group."""
