"""The HorizontalPodAutoscaler: metrics in, a replica count out, kept steady by behaviour rules."""
