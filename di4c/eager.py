"""Functions that torch.compile is to leave alone."""

import torch

run_eagerly = getattr(torch, "_disable_dynamo", torch.compiler.disable)
"""Decorator: the function is run, not traced, and torch.compile breaks its graph there. For loops as long as the data ask for, and
for generators. torch's own decorator imports the compiler only when it is called; the public one does so at once, which takes seconds.
"""
