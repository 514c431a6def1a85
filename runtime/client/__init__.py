"""The client side of a station: results in order, requests, frames."""
