"""Literal secrets are not shown; references and everything else are."""

from __future__ import annotations

import pytest

from framegate.config.masking import masked, masked_text


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("credentials: {username: gw, password: hunter2}", "credentials: {username: gw, password: ***}"),
        ('  password: "a, b # c"  # mine', "  password: ***  # mine"),
        ("  password: 'it''s', x: 1", "  password: ***, x: 1"),
        ("  password: two words", "  password: ***"),
        ('{"api_token": "x"}', '{"api_token": ***}'),
        ("  Passphrase: x", "  Passphrase: ***"),
        ('  password: "${env:BROKER}"', '  password: "${env:BROKER}"'),
        ("  password: ${file:/run/p}", "  password: ${file:/run/p}"),
        ("  tag: password.count", "  tag: password.count"),
    ],
)
def test_masked_text_hides_the_value_alone(line: str, shown: str) -> None:
    assert masked_text(line) == shown


def test_masked_value_hides_at_any_depth() -> None:
    row = {"url": "x", "credentials": {"username": "gw", "password": "hunter2"}, "more": [{"token": "${env:T}"}]}
    assert masked(row) == {
        "url": "x", "credentials": {"username": "gw", "password": "***"}, "more": [{"token": "${env:T}"}],
    }  # fmt: skip
