"""Text from outside: encodings, TOML, JSON, tables, numbers, names, paths and addresses are read here and nowhere else.

Each function gives a value or raises ``TextRefused``, which says what is wrong, where and the remedy; the caller adds
the file or field, and raises its own error.
"""
