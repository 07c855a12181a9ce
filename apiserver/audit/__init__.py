"""The audit log: who did what, as far as a policy says that it is to be told."""
