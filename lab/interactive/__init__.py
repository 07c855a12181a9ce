"""Clusters for notebooks and tests, used step by step with plain calls: virtual ones and labs, with the same words."""
