"""Image tokenizers: pictures to grids of codes and back."""
