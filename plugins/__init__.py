"""The built-in parts, each named in registry.yaml; imports di4c's contracts only."""
