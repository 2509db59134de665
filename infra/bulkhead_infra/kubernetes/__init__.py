"""Manifests for Kubernetes, rendered from the rows of services, policy and catalog."""
