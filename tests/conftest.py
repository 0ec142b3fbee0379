"""Fixtures that every room's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the indices of the tests' datasets out of a developer's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLT_GYM_CACHE", str(tmp_path_factory.mktemp("indices")))
        yield


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
