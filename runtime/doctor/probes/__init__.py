"""Modules that can be imported only if something works; the doctor tries each in a separate process."""
