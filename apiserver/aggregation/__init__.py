"""Aggregation: other API servers behind this one, each serving a group and version that an APIService names."""
