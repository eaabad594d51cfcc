"""A bridge whose clients ask for a tag by one line of text."""

VERSION = "1.0.0"
