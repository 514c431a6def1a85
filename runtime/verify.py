"""Verify a bundle in a child process, so that a graph that crashes or hangs a library takes no station with it.

``python -m runtime.verify BUNDLE --keys FOLDER`` opens the bundle, opens a CPU engine and passes the gate; its last
line on stdout is JSON. ``verify_in_child`` runs that and gives the digest, by which the parent knows that the bundle it
then opens is the one that was verified.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import msgspec

from runtime.bundle import open_bundle
from runtime.errors import AsperityError, BundleError, EngineError, ParityError, SignatureError
from runtime.gate import prove
from runtime.keys import TrustStore

ERRORS: dict[str, type[AsperityError]] = {
    kind.__name__: kind for kind in (BundleError, SignatureError, ParityError, EngineError)
}


class Outcome(msgspec.Struct, frozen=True):
    """What the child says."""

    digest: str = ""
    error: str = ""
    """Name of the error's type; empty when the bundle is good."""
    message: str = ""


def verify(path: Path, trust: TrustStore, threads: int | None) -> str:
    """Digest of a bundle that opens and passes the gate with the CPU engine. Raises BundleError, EngineError."""
    from runtime.engines.cpu import CpuEngine

    bundle = open_bundle(path, trust)
    engine = CpuEngine.open(bundle, threads)
    try:
        prove(bundle, engine)
    finally:
        engine.close()
    return bundle.digest


def verify_in_child(path: Path, trust: TrustStore, timeout_s: float, threads: int | None = 1) -> str:
    """As ``verify``, in a process of its own. Raises the child's error, and BundleError when it dies or hangs."""
    command = [sys.executable, "-m", "runtime.verify", str(path), "--keys", str(trust.folder)]
    if threads is not None:
        command += ["--threads", str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise BundleError(
            f"bundle {path} was not verified within {timeout_s:g} s; give it more time (timing.recipe_ms) or export it "
            "with smaller networks"
        ) from None
    lines = done.stdout.splitlines()
    try:
        outcome = msgspec.json.decode(lines[-1] if lines else b"", type=Outcome)
    except msgspec.MsgspecError:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        raise BundleError(
            f"bundle {path} crashed the process that verified it (exit code {done.returncode}"
            f"{': ' + told[-1] if told else ''}); export it again"
        ) from None
    if outcome.error:
        raise ERRORS.get(outcome.error, BundleError)(outcome.message)
    return outcome.digest


def main() -> None:
    """The child: one JSON line on stdout, exit code 0 whether the bundle is good or not."""
    parser = argparse.ArgumentParser(prog="python -m runtime.verify")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    try:
        outcome = Outcome(digest=verify(arguments.bundle, TrustStore(arguments.keys), arguments.threads))
    except AsperityError as error:
        outcome = Outcome(error=type(error).__name__, message=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")


if __name__ == "__main__":
    main()
