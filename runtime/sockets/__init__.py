"""Who may connect to a station, and what comes in."""
