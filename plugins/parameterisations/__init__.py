"""How a network's output becomes log p(x_0 | x_t)."""
