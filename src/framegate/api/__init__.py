"""The REST API and the live channel: see operations.py."""
