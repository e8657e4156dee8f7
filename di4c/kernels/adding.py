"""What rows have at tokens, and sums into lines of a table, in a fixed order on every device."""

from torch import Tensor


def add_lines(total: Tensor, line: Tensor, values: Tensor) -> None:
    """Adds values [P, …] to the lines `line` [P] of total [L, …]; a line may come more than once.

    On a GPU `index_add_` is atomic; `index_put_` sorts what it accumulates.
    """
    if total.is_cuda:
        total.index_put_((line,), values, accumulate=True)
    else:
        total.index_add_(0, line, values)


def at_tokens(values: Tensor, tokens: Tensor, row: Tensor | None = None) -> Tensor:
    """Values [P, M, S] at the tokens [P, N] of each row: [P, M, N]; or at tokens [Q, N] of the rows `row` [Q]: [Q, M, N]."""
    if row is None:
        return values.gather(-1, tokens[:, None].expand(-1, values.shape[1], -1))
    return values.transpose(1, 2)[row[:, None], tokens].transpose(1, 2)


def chosen_table(row: Tensor, tokens: Tensor, chosen: Tensor, rows: int, states: int) -> Tensor:
    """Gradients of chosen log-probabilities, [Q, M, N] for tokens [Q, N] at rows row [Q], as those of all: [P, M, S]."""
    table = chosen.new_zeros(rows * states, chosen.shape[1])
    lines = (row[:, None] * states + tokens).flatten()
    add_lines(table, lines, chosen.transpose(1, 2).flatten(0, 1))
    return table.view(rows, states, -1).transpose(1, 2)
