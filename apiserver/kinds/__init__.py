"""What one kind has of its own: a file a resource, a folder an API group."""
