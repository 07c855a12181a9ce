"""The API server: HTTPS -> authentication -> authorization -> admission -> registry -> cache -> store."""
