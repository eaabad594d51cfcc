"""Commands on their way down: see desk.py."""
