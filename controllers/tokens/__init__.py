"""Tokens that lie in Secrets: of service accounts, and for new nodes."""
