"""Prints the matrix's table after the tests."""

TABLE: list[str] = []


def pytest_terminal_summary(terminalreporter):
    if TABLE:
        terminalreporter.section("scale matrix: largest relative difference from the fp32 losses of stage 0 on one rank")
        for line in TABLE:
            terminalreporter.write_line(line)
