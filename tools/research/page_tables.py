"""Tables of the pages."""


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown, numbers to the right; a | inside a cell is escaped, since it would end the cell."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [head, rule, *rows]
    )
