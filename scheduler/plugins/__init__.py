"""The plugins, one a file, under the names Kubernetes gave them."""
