"""Custom and external metrics for autoscalers, from the Prometheus text that pods serve: an API server behind an APIService."""
