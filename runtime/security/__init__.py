"""Keys, and files and sockets that only this user may change."""
