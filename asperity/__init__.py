"""Asperity: inspects parts with a colour + 3D camera at the edge.

The packages are at the top of the repository; the links next to this file give them their import names
(docs/decisions/import-names.md).
"""
