"""Routes: the template that names where a message goes (MQTT topic, subject, partition key).

A template is text with {tenant}, {gateway}, {connector}, {device} and {tag}. What a message holds decides which of
the last two make sense; the encoder says so when the template is read, not when the first message leaves.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from framegate.contract.errors import Misconfigured

FIELDS = ("tenant", "gateway", "connector", "device", "tag")
ROUTE_BYTES_MAX = 65_535  # MQTT 5.0, 1.5.4: a topic is a UTF-8 string with a two-byte length
_FIELD = re.compile(r"\{([^{}]*)\}")
# Wildcards and control characters must not appear in a topic name (MQTT 5.0, 4.7.1 and 1.5.4).
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f#+]")
GAP_NAME = "gap"


class Route:
    """A template with tenant, gateway and connector filled in."""

    __slots__ = ("_template", "names_device", "names_tag")

    def __init__(self, template: str, *, tenant: str, gateway: str, connector: str, fields: Collection[str]) -> None:
        """Read a template.

        fields  placeholders that this encoding can fill
        raises  Misconfigured - another placeholder, a stray brace, wildcards, or nothing at all
        """
        _check(template, fields)
        known = {"tenant": tenant, "gateway": gateway, "connector": connector}
        self.names_device = "{device}" in template
        self.names_tag = "{tag}" in template
        self._template = _FIELD.sub(lambda found: _escaped(known.get(found[1]), found[0]), template)

    def render(self, device: str = "", tag: str = "") -> bytes:
        """The route of one device or tag, as UTF-8; characters that no topic may hold become `_`."""
        filled = {"device": device, "tag": tag}
        text = _FIELD.sub(lambda found: _clean(filled[found[1]]), self._template)
        return text.replace("\x02", "{").replace("\x03", "}").encode()[:ROUTE_BYTES_MAX]

    def render_gap(self) -> bytes:
        """The route of a notice about lost frames: the word "gap" stands for device and tag."""
        return self.render(GAP_NAME, GAP_NAME)


def _check(template: str, fields: Collection[str]) -> None:
    asked = _FIELD.findall(template)
    unknown = [name for name in asked if name not in fields]
    if unknown:
        allowed = ", ".join(f"{{{name}}}" for name in FIELDS if name in fields)
        text = f"topic {template!r}: {{{unknown[0]}}} cannot be filled for this encoding; use {allowed}"
        raise Misconfigured(text, code="E2401")
    plain = _FIELD.sub("", template)
    if "{" in plain or "}" in plain:
        raise Misconfigured(f"topic {template!r} has a brace without its partner; write {{device}}", code="E2401")
    if not template or _FORBIDDEN.search(plain):
        text = f"topic {template!r} is empty or holds a wildcard or control character; messages need a plain topic"
        raise Misconfigured(text, code="E2401")


def _clean(value: str) -> str:
    return _FORBIDDEN.sub("_", value)


def _escaped(value: str | None, field: str) -> str:
    """A value whose braces cannot be taken for placeholders; an unknown field stays for render()."""
    return field if value is None else _clean(value).replace("{", "\x02").replace("}", "\x03")
