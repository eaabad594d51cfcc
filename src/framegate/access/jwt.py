"""JWTs of federated issuers: RFC 7519 in JWS compact form (RFC 7515), read the way RFC 8725 advises.

    found = verifier.verify(text, now_ns)         None: refused, for whatever reason

Read strictly before any key is touched: size, alphabet, three parts, canonical base64url, no member twice, a header of
known members only. The key decides the algorithm; the header's word for it is compared and never followed. Claims: iss,
aud, exp, iat, sub, tenant and scope must be there; nbf and jti count where they are.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from framegate.access.issuer import IssuerKey, IssuerOptions, KeyFile
from framegate.access.roles import VIEWER
from framegate.access.token import hash_of, is_over
from framegate.access.token_file import JTI_CHARACTERS_MAX
from framegate.contract.access import Permission, Principal
from framegate.contract.ports import Log

TOKEN_BYTES_MAX = 8192
"""Whoever takes a token from outside refuses a longer one before it comes here."""
LEEWAY_S = 60
"""How far the issuer's clock and ours may differ."""
LIFE_S_MAX = 86_400
"""From iat to exp. A JWT that lives longer is refused: until when would a revocation have to be kept?"""
CACHE_MAX = 4096
"""Verified JWTs that are remembered until they expire. Who falls out shows the token again."""
BRACKETS_MAX = 256
"""Arrays and objects in a header or in claims."""
SUBJECT_CHARACTERS_MAX = 128
KEY_PREFIX = "jwt:"
"""Of `Principal.key`; the token's hash follows."""
SCOPES: Mapping[str, frozenset[Permission]] = {"read": VIEWER, "write": frozenset((Permission.TAGS_WRITE,))}
"""What a word of the claim `scope` allows; other words are passed over."""

_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_HEADER = frozenset(("alg", "kid", "typ", "x5t", "x5t#S256"))
"""Members a header may have. Not jku, x5u, jwk, x5c: keys come from our file; not crit, b64, cty, enc, zip."""
_TYPES = frozenset(("jwt", "at+jwt", "application/at+jwt"))
_MODELS = {"EdDSA": "Ed25519", "ES256": "ES256", "RS256": "RS256"}
"""Names of algorithms at joserfc."""
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Verified:
    """A JWT that was found sound. `key` is the IssuerKey's id, by which it goes when that key is withdrawn."""

    principal: Principal
    jti: str
    issuer: str
    key: str


class Verifier:
    """Checks JWTs of the configured issuers, and remembers those that are sound."""

    def __init__(self, issuers: Sequence[IssuerOptions], gateway_name: str, tenant: str, log: Log) -> None:
        filled = (replace(row, audience=row.audience or gateway_name, tenant=row.tenant or tenant) for row in issuers)
        self._issuers = {row.issuer: (row, KeyFile(row)) for row in filled}
        self._tenant, self._log = tenant, log
        self._sound: OrderedDict[str, Verified] = OrderedDict()
        for issuer in self._issuers:  # now and not with the first token: what checks them takes 0.1 s to load
            self._refresh(issuer)

    def verify(self, text: str, now_ns: int) -> Verified | None:
        """Who shows this JWT; None where it is none of ours, or no good. Revocation is for the caller to ask."""
        key = KEY_PREFIX + hash_of(text)
        found = self.known(key, now_ns)
        if found is None:
            found = self._check(text, key, now_ns)
            if found is not None:
                self._sound[key] = found
                if len(self._sound) > CACHE_MAX:
                    self._sound.popitem(last=False)
        return found

    def known(self, key: str, now_ns: int) -> Verified | None:
        """A JWT that was verified before, by its `Principal.key`, if it has not expired and its key still counts."""
        found = self._sound.get(key)
        if found is None:
            return None
        self._refresh(found.issuer)
        if key not in self._sound:
            return None
        if is_over(found.principal.expires, now_ns):
            del self._sound[key]
            return None
        self._sound.move_to_end(key)
        return found

    def _refresh(self, issuer: str) -> KeyFile:
        """The issuer's keys as its file has them now; what withdrawn keys had signed is forgotten."""
        _, keys = self._issuers[issuer]
        if keys.refresh():
            if keys.flaw:
                self._log.error("access_keys_unusable", issuer=issuer, reason=keys.flaw)
            else:
                self._log.info("access_keys_read", issuer=issuer, keys=len(keys.keys))
            valid = {key.id for key in keys.keys}
            for key, entry in list(self._sound.items()):
                if entry.issuer == issuer and entry.key not in valid:
                    del self._sound[key]
        return keys

    def _check(self, text: str, key: str, now_ns: int) -> Verified | None:
        try:
            header, claims, signed, signature = _read(text)
            issuer = claims["iss"]
            if not isinstance(issuer, str) or issuer not in self._issuers:
                return None
            public = self._refresh(issuer).find(_kid_of(header))
            if public is None or header["alg"] not in public.names or not _is_signed(signed, signature, public):
                return None
            return self._principal(self._issuers[issuer][0], claims, public.id, key, now_ns)
        except (ValueError, TypeError, KeyError, OverflowError):
            return None  # text from outside that is no JWT of ours, in one of many ways

    def _principal(
        self, row: IssuerOptions, claims: Mapping[str, Any], public: str, key: str, now_ns: int
    ) -> Verified | None:
        subject, jti = _text(claims["sub"], SUBJECT_CHARACTERS_MAX), claims.get("jti")
        if jti is not None:
            _text(jti, JTI_CHARACTERS_MAX)
        is_for_us = _is_for(claims["aud"], row.audience) and claims["tenant"] == row.tenant
        if not is_for_us or not _is_in_time(claims, now_ns):
            return None
        words = _text(claims["scope"], TOKEN_BYTES_MAX).split(" ")
        permissions = frozenset[Permission]().union(*(SCOPES.get(word, frozenset()) for word in words))
        if not permissions:
            return None
        expires = int((claims["exp"] + LEEWAY_S) * _NS)
        principal = Principal(f"{subject}@{row.issuer}", permissions, ("*",), self._tenant, expires, key)
        return Verified(principal, jti or "", row.issuer, public)


def _read(text: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """Header, claims, what was signed, signature. Raises ValueError, KeyError."""
    match = _PARTS.fullmatch(text)
    if match is None:
        raise ValueError("not three parts of base64url")
    header, claims, signature = (_decoded(part) for part in match.groups())
    head = _object(header)
    if not head.keys() <= _HEADER or not isinstance(head["alg"], str):
        raise ValueError("a header that is not understood whole")
    if str(head.get("typ", "JWT")).lower() not in _TYPES:
        raise ValueError("a JWS, but no JWT")
    return head, _object(claims), text[: match.start(3) - 1].encode("ascii"), signature


def _decoded(part: str) -> bytes:
    """Base64url without padding, in its one canonical form (RFC 4648, 3.5)."""
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error as error:
        raise ValueError("no base64url") from error
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part.encode("ascii"):
        raise ValueError("base64url with bits left over")
    return data


def _object(data: bytes) -> dict[str, Any]:
    """A JSON object as RFC 8259 has it: no member twice, no NaN; not deep, as depth costs more time than length."""
    if data.count(b"[") + data.count(b"{") > BRACKETS_MAX:
        raise ValueError("too many arrays and objects")
    value = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    if not isinstance(value, dict):
        raise TypeError("no object")
    return value


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _kid_of(header: Mapping[str, Any]) -> str | None:
    if "kid" not in header:
        return None
    if not isinstance(header["kid"], str):
        raise TypeError("a kid is text")
    return header["kid"]


def _text(value: Any, characters_max: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= characters_max or not value.isprintable():
        raise ValueError("no text")
    return value


def _is_signed(signed: bytes, signature: bytes, public: IssuerKey) -> bool:
    from joserfc.errors import JoseError  # noqa: PLC0415 - loaded with the key already
    from joserfc.jws import JWSRegistry  # noqa: PLC0415

    try:
        return bool(JWSRegistry.algorithms[_MODELS[public.algorithm]].verify(signed, signature, public.key))
    except JoseError:
        return False


def _is_in_time(claims: Mapping[str, Any], now_ns: int) -> bool:
    now = now_ns / _NS
    expires, issued = _seconds(claims["exp"]), _seconds(claims["iat"])
    not_before = _seconds(claims.get("nbf", issued))
    if not 0 < expires - issued <= LIFE_S_MAX:
        return False
    return max(issued, not_before) - LEEWAY_S <= now < expires + LEEWAY_S


def _seconds(value: Any) -> float:
    """A NumericDate: a number, and True is none."""
    if type(value) not in (int, float):
        raise TypeError("no NumericDate")
    return float(value)


def _is_for(audience: Any, wanted: str) -> bool:
    """`aud` is a text or a list of texts."""
    if isinstance(audience, list):
        return all(isinstance(each, str) for each in audience) and wanted in audience
    return isinstance(audience, str) and audience == wanted
