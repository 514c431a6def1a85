"""Limits of a client: how long it waits and how much it stores."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Bounds of a client."""

    request_timeout_ms: int = 500
    """A request without an answer is asked again after this long."""
    request_tries: int = 3
    """Times ``request_timeout_ms``: longer than the station's ``[control] request_age_max_ms``."""
    requests_at_once: int = 16
    ask_again_ms: int = 100
    """A result that the journal has not answered yet is asked for again after this long."""
    patience_ms: int = 5000
    """A missing result is named a gap after this long; longer than any deadline."""
    silent_ms: int = 1000
    """A station without a state for this long is silent: perhaps its inspector is being restarted."""
    restart_ms: int = 60_000
    """``patience_ms`` while the station is silent: after a restart its journal still has what was missing."""
    renew_ms: int = 10_000
    """Sockets are made again after this long without a state: libzmq gives up permanently on a peer that broke the
    protocol."""
    results_queue_messages: int = 1000
    held_results: int = 4096
    """Results that may wait for an older one; beyond it the older one is given up."""
    ready_results: int = 8192
    """Results that may wait for the caller while a request is pending."""
