"""What is done to the logits of a chunk of rows, in two implementations of the same three functions.

    row_values     what the losses need of each row
    row_gradient   the gradient of those with respect to the logits
    row_draw       a draw from every distribution of a row, and their weighted mean

torch_rows is for any device and dtype; triton_rows for float32 logits on CUDA, by triton_kernels. `backend.kernels_for` chooses.
No addition is atomic: the same inputs give the same bits.
"""
