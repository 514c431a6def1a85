"""Digital outputs of a station: ready, busy, accept, reject, strobe."""
