"""Modules that import only where something works; the doctor tries each in a separate process."""
