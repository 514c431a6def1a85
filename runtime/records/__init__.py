"""What a station remembers: counts, the journal, the audit file, the slowest frames, drift."""
