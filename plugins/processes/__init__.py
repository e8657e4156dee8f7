"""Forward (noising) processes."""
