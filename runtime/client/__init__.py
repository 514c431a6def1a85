"""A station as its clients see it: results in order, requests, frames."""
