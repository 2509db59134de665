"""The Helm chart's rendered parts, and keys of a mesh in Kubernetes."""
