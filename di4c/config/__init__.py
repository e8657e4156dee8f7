"""From a YAML file to objects: registry, spec, build."""
