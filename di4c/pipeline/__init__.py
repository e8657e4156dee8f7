"""The runs of a pipeline, made one after another."""
