"""The published description of the API: OpenAPI v3, one document a group-version, and OpenAPI v2, one for all."""
