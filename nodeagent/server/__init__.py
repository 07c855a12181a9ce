"""The agent's own HTTPS server: logs, exec, attach, pods, stats. The API server is its client."""
