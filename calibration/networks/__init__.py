"""The networks LSFA stands on: colour backbones, point encoder, adaptors (torch)."""
