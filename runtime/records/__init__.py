"""What a station records: counts, the journal, the audit file, the slowest frames, drift."""
