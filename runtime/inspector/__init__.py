"""The inspector's process: the I/O thread, its stations and their states."""
