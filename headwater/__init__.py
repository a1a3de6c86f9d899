"""Headwater: streaming, near-real-time conditional retrieval."""

__version__ = "0.1.0"
