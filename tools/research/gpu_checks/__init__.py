"""The parts of tools/gpu_check.sh: each writes its JSON file anew after every result, so that a run that is cut off keeps what it had."""
