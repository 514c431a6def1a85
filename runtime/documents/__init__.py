"""Makes tables of the docs and constants for other languages: ``make documents``; no process imports it.

One module per page or kit, ``everything.py`` lists them all, ``python -m asperity.runtime.documents`` rewrites them.
"""
