"""A connector whose remote takes each message as one line of JSON and answers with its position."""

VERSION = "1.0.0"
