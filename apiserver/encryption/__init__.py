"""Encryption at rest: what the store holds of chosen resources nobody can read without the key."""
