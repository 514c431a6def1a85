"""A bundle is verified in a child: its errors arrive as what they are, and its death or sleep is an error too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bundle_factory import ToyBundle, write_toy_bundle

from runtime.errors import BundleError, ParityError, SignatureError
from runtime.keys import TrustStore
from runtime.verify import verify_in_child

PATIENCE_S = 120.0


@pytest.fixture
def toy(tmp_path: Path) -> ToyBundle:
    return write_toy_bundle(tmp_path / "bundle", TrustStore(tmp_path / "keys"), "lsfa")


def test_the_childs_errors_keep_type_and_words(toy: ToyBundle, tmp_path: Path) -> None:
    # The toy's golden scores are invented, so it opens and does not pass the gate.
    with pytest.raises(ParityError, match="normal_0"):
        verify_in_child(toy.path, toy.trust, PATIENCE_S)
    with pytest.raises(SignatureError, match="asperity keys trust"):
        verify_in_child(toy.path, TrustStore(tmp_path / "stranger"), PATIENCE_S)
    (toy.path / "rgb.onnx").write_bytes(b"x" * 100)
    with pytest.raises(BundleError, match=r"rgb\.onnx was altered"):
        verify_in_child(toy.path, toy.trust, PATIENCE_S)


def test_a_child_that_dies_or_sleeps_is_an_error(toy: ToyBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="not verified within"):
        verify_in_child(toy.path, toy.trust, 0.01)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BundleError, match="crashed the process"):
        verify_in_child(toy.path, toy.trust, PATIENCE_S)
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    with pytest.raises(BundleError, match="crashed the process"):
        verify_in_child(toy.path, toy.trust, PATIENCE_S)
