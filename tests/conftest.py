"""Fixtures that every room's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference values and real frames that lies beside a developer's checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs the reference values in ../shared, which are not here")
    return SHARED


@pytest.fixture(scope="session")
def real_sequences(shared: Path) -> Path:
    """Four real sequences in OTB's layout."""
    return shared / "data" / "sequences"
