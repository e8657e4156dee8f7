"""What a run will need, from its spec alone: memory a rank, FLOPs a step, the sizes that fit."""
