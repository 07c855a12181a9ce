"""Custom resources: definitions of kinds that users bring, and the serving of their objects."""
