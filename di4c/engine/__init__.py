"""The DeepSpeed loop, checkpoints, EMA, export; knows objectives, not their content."""
