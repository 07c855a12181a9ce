"""Recordings of live clusters: reading any cluster that speaks Kubernetes, and writing down every change."""
