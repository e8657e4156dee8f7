"""Reference numbers as checks of this project's modules: one file a system, each with a list `KINDS`."""
