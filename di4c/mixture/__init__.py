"""The mixture's numerics: what every sum over positions and components is, and how it is taken without [B, M, D, S].

reference   the sums as the paper writes them, densely; documentation, oracle, yardstick
sums        Query → Statistics: the same chunk by chunk
target      a sample of each component of the target, and its marginals
marginals   q̄, kept from the draw or read again
chunked     the pass over rows with an affine output head, forwards and backwards
rows        where the rows' features are; sums by example
affine      output heads with their weights in hand; the library's products
equal_inputs    which examples have the same input, asked once and read once for all of them
every_sample    all x in place of samples, on small spaces
"""
