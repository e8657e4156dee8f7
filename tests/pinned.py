"""Tests that need a version which an environment that was not made by tools/install.sh may lack."""

import importlib.metadata

import pytest
from packaging.requirements import Requirement


def needs(text: str) -> pytest.MarkDecorator:
    """Skips a test, saying which version is there, unless the requirement is met: needs("setuptools>=77")."""
    requirement = Requirement(text)
    try:
        found = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return pytest.mark.skip(reason=f"needs {text}, which is not installed")
    return pytest.mark.skipif(
        not requirement.specifier.contains(found, prereleases=True), reason=f"needs {text}, found {found}"
    )
