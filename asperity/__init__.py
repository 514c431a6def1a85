"""Asperity: inspects parts with a colour + 3D camera at the edge.

The rooms lie at the top of the repository; the links beside this file give them their import names
(docs/decisions/import-names.md).
"""
