"""How a bundle is refused."""

from __future__ import annotations

import pytest

from asperity.runtime.bundle.reader import open_bundle
from asperity.runtime.errors import BundleError
from tests.bundle_factory import ToyBundle


def refused(toy: ToyBundle, *words: str) -> None:
    """The bundle does not open, and the sentence holds these words."""
    with pytest.raises(BundleError) as caught:
        open_bundle(toy.path, toy.trust)
    for word in words:
        assert word in str(caught.value), str(caught.value)
