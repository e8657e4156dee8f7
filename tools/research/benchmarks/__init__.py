"""What tools/bench.py measures: each module builds the same work twice, as this project does it and plainly."""
