"""Made by tools/generate.py from contract/; not edited."""
