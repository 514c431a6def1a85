"""Toy bundles as fixtures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from asperity.runtime.security.signing_keys import TrustStore
from tests.bundle_factory import ToyBundle, write_toy_bundle


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ToyBundle]:
    folder = tmp_path_factory.mktemp("toy")
    trust = TrustStore(folder / "keys")
    return {kind: write_toy_bundle(folder / kind, trust, adaptor=kind) for kind in ("none", "lsfa")}  # type: ignore[arg-type]


@pytest.fixture
def toy(pristine: dict[str, ToyBundle], tmp_path: Path) -> ToyBundle:
    """A copy with adaptors, to be damaged."""
    whole = pristine["lsfa"]
    copy = Path(shutil.copytree(whole.path, tmp_path / "bundle"))
    return ToyBundle(path=copy, key=whole.key, trust=whole.trust)
