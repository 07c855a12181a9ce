"""Admission by webhooks."""
