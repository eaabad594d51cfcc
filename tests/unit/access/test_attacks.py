"""What people try on tokens: each row must be refused, and one sound token of each algorithm must pass."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from framegate.access import jwt
from framegate.access.issuer import IssuerKey, IssuerOptions, read_keys
from framegate.access.room import AccessRoom, open_access
from framegate.contract.access import Permission
from framegate.contract.errors import Denied, Misconfigured
from framegate.testing.fakes import CollectingLog, FakeClock

Attack = Callable[[Any], str]
HEADER = {"alg": "EdDSA", "typ": "JWT", "kid": "eddsa"}
GOOD_B64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(issuer: Any, header: dict[str, Any]) -> str:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(issuer.claims()).encode())}"


def none(issuer: Any, name: str, ending: str = ".") -> str:
    return unsigned(issuer, {**HEADER, "alg": name}) + ending


def hmac_with(issuer: Any, secret: bytes, **header: Any) -> str:
    signed = unsigned(issuer, {"alg": "HS256", "typ": "JWT", **header})
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def jwk_of(issuer: Any, kid: str) -> dict[str, Any]:
    keys = json.loads(issuer.keys.read_text())["keys"]
    return next(key for key in keys if key["kid"] == kid)


def raw_header(issuer: Any, text: str) -> str:
    return issuer.sign(text, json.dumps(issuer.claims()))  # type: ignore[no-any-return]


def raw_claims(issuer: Any, change: Callable[[str], str]) -> str:
    return issuer.sign(json.dumps(HEADER), change(json.dumps(issuer.claims())))  # type: ignore[no-any-return]


def parts(issuer: Any) -> list[str]:
    return issuer.token().split(".")  # type: ignore[no-any-return]


def with_part(issuer: Any, index: int, change: Callable[[str], str]) -> str:
    pieces = parts(issuer)
    pieces[index] = change(pieces[index])
    return ".".join(pieces)


def next_letter(text: str) -> str:
    """The last character changed in a bit that decoding throws away."""
    return text[:-1] + GOOD_B64[GOOD_B64.index(text[-1]) + 1]


def own_key(issuer: Any, **header: Any) -> str:
    """Signed by a key that travels in the header."""
    return issuer.token("ES256", {"kid": None, **header})  # type: ignore[no-any-return]


MEMBERS = {
    "jku": "https://evil.example/jwks.json",
    "x5u": "https://evil.example/cert.pem",
    "jwk": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    "x5c": ["MIIB"],
    "crit": ["exp"],
    "b64": False,
    "cty": "JWT",
    "zip": "DEF",
    "enc": "A256GCM",
    "unheard": 1,
}

TOKENS: dict[str, Attack] = {
    # -- the algorithm
    "alg none": lambda i: none(i, "none"),
    "alg None in other case": lambda i: none(i, "nOnE"),
    "alg none without second dot": lambda i: none(i, "none", ""),
    "alg none with a signature": lambda i: none(i, "none", f".{parts(i)[2]}"),
    "alg empty": lambda i: i.token(header={"alg": ""}),
    "alg missing": lambda i: i.token(header={"alg": None}),
    "alg a list": lambda i: i.token(header={"alg": ["EdDSA"]}),
    "alg a number": lambda i: i.token(header={"alg": 1}),
    "alg of another key": lambda i: i.token(header={"alg": "RS256"}),
    "alg in small letters": lambda i: i.token("RS256", {"alg": "rs256"}),
    "alg PS256 with an RSA key": lambda i: i.token("RS256", {"alg": "PS256"}),
    "alg RS512 with an RSA key": lambda i: i.token("RS256", {"alg": "RS512"}),
    "alg ES384 with a P-256 key": lambda i: i.token("ES256", {"alg": "ES384"}),
    "HS256 with the key set as secret": lambda i: hmac_with(i, i.keys.read_bytes(), kid="rs256"),
    "HS256 with the public key as secret": lambda i: hmac_with(i, jwk_of(i, "rs256")["n"].encode(), kid="rs256"),
    "HS256 with an Ed25519 point as secret": lambda i: hmac_with(
        i, base64.urlsafe_b64decode(jwk_of(i, "eddsa")["x"] + "="), kid="eddsa"
    ),
    "HS256 with an empty secret": lambda i: hmac_with(i, b""),
    # -- the key
    "kid unknown": lambda i: i.token(header={"kid": "other"}),
    "kid missing": lambda i: i.token(header={"kid": None}),
    "kid empty": lambda i: i.token(header={"kid": ""}),
    "kid null": lambda i: raw_header(i, '{"alg":"EdDSA","kid":null}'),
    "kid a path": lambda i: i.token(header={"kid": "../../../../dev/null"}),
    "kid a path, HS256 with nothing": lambda i: hmac_with(i, b"", kid="/dev/null"),
    "kid an SQL text": lambda i: i.token(header={"kid": "x' UNION SELECT 'eddsa"}),
    "kid a shell text": lambda i: i.token(header={"kid": "eddsa|id"}),
    "kid with NUL": lambda i: i.token(header={"kid": "eddsa\0"}),
    "kid a list": lambda i: i.token(header={"kid": ["eddsa"]}),
    "kid of another key": lambda i: i.token(header={"kid": "es256"}),
    "signed by another key": lambda i: i.sign(json.dumps(HEADER), json.dumps(i.claims()), "ES256"),
    "the signer's own key in the header": lambda i: own_key(i, jwk=jwk_of(i, "es256")),
    **{f"header {name}": lambda i, n=name, v=value: i.token(header={n: v}) for name, value in MEMBERS.items()},  # type: ignore[misc]
    # -- the claims
    **{
        f"claim {name} missing": lambda i, n=name: i.token(**{n: None})  # type: ignore[misc]
        for name in ("iss", "aud", "exp", "iat", "sub", "tenant", "scope")
    },
    "iss another": lambda i: i.token(iss="https://evil.example"),
    "iss with a slash more": lambda i: i.token(iss="https://idp.example/realms/plant/"),
    "iss a list": lambda i: i.token(iss=["https://idp.example/realms/plant"]),
    "aud another": lambda i: i.token(aud="other"),
    "aud a list without us": lambda i: i.token(aud=["other", "framegat"]),
    "aud a list with an object": lambda i: i.token(aud=["framegate", {}]),
    "aud an object": lambda i: i.token(aud={"framegate": 1}),
    "aud empty": lambda i: i.token(aud=[]),
    "tenant another": lambda i: i.token(tenant="water"),
    "tenant a list": lambda i: i.token(tenant=["gas"]),
    "tenant in other case": lambda i: i.token(tenant="GAS"),
    "expired": lambda i: i.token(iat=i.now_s - 700, exp=i.now_s - jwt.LEEWAY_S),
    "exp before iat": lambda i: i.token(iat=i.now_s + 30, exp=i.now_s + 20),
    "exp a text": lambda i: i.token(exp=str(i.now_s + 600)),
    "exp true": lambda i: i.token(exp=True),
    "exp NaN": lambda i: raw_claims(i, lambda text: text.replace(str(i.now_s + 600), "NaN")),
    "exp infinite": lambda i: raw_claims(i, lambda text: text.replace(str(i.now_s + 600), "1e999")),
    "exp far away": lambda i: i.token(exp=i.now_s + jwt.LIFE_S_MAX),
    "exp with a thousand digits": lambda i: i.token(exp=10**1000),
    "exp with ten thousand digits": lambda i: raw_claims(i, lambda text: text.replace(str(i.now_s + 600), "9" * 5000)),
    "iat in the future": lambda i: i.token(iat=i.now_s + jwt.LEEWAY_S + 1),
    "nbf in the future": lambda i: i.token(nbf=i.now_s + jwt.LEEWAY_S + 1),
    "nbf true": lambda i: i.token(nbf=True),
    "nbf NaN": lambda i: i.token(nbf=float("nan")),
    "nbf a text": lambda i: i.token(nbf="0"),
    "sub empty": lambda i: i.token(sub=""),
    "sub a number": lambda i: i.token(sub=1),
    "sub with a line end": lambda i: i.token(sub="alice\nroot"),
    "sub long": lambda i: i.token(sub="a" * 129),
    "jti a number": lambda i: i.token(jti=1),
    "scope of others": lambda i: i.token(scope="openid profile"),
    "scope in other case": lambda i: i.token(scope="READ Write"),
    "scope in wide letters": lambda i: i.token(scope="\uff52\uff45\uff41\uff44"),
    "scope a list": lambda i: i.token(scope=["read", "write"]),
    "scope glued": lambda i: i.token(scope="readwrite"),
    # -- the form
    "typ of another kind": lambda i: i.token(header={"typ": "secevent+jwt"}),
    "truncated": lambda i: i.token()[:-8],
    "signature empty": lambda i: i.token()[: i.token().rindex(".") + 1],
    "signature missing": lambda i: ".".join(parts(i)[:2]),
    "signature of another token": lambda i: with_part(i, 2, lambda _: i.token(sub="bob").split(".")[2]),
    "signature all zero": lambda i: with_part(i, 2, lambda _: b64(bytes(64))),
    "ES256 all zero": lambda i: i.token("ES256").rsplit(".", 1)[0] + f".{b64(bytes(64))}",
    "ES256 in DER": lambda i: i.token("ES256").rsplit(".", 1)[0] + f".{b64(bytes.fromhex('3006020101020101'))}",
    "claims changed": lambda i: with_part(i, 1, lambda _: b64(json.dumps(i.claims(sub="root")).encode())),
    "padded": lambda i: i.token() + "==",
    "signature with bits left over": lambda i: with_part(i, 2, next_letter),
    "plain base64": lambda i: with_part(i, 2, lambda text: text.replace("_", "/").replace("-", "+") + "+"),
    "huge": lambda i: i.token(sub="a" * 1_000_000),
    "just too long": lambda i: i.token(note="a" * jwt.TOKEN_BYTES_MAX),
    "deeply nested": lambda i: i.sign("[" * 3000 + "]" * 3000, "{}"),
    "claims deeply nested": lambda i: i.sign(json.dumps(HEADER), '{"a":' + "[" * 2500 + "]" * 2500 + "}"),
    "NUL at the end": lambda i: i.token() + "\0",
    "NUL within": lambda i: with_part(i, 0, lambda text: f"{text[:5]}\0{text[5:]}"),
    "line end within": lambda i: with_part(i, 1, lambda text: f"{text[:5]}\n{text[5:]}"),
    "header twice the same member": lambda i: raw_header(i, '{"alg":"none","kid":"eddsa","alg":"EdDSA"}'),
    "claim twice": lambda i: raw_claims(i, lambda text: text[:-1] + ', "sub": "root"}'),
    "header an array": lambda i: raw_header(i, "[]"),
    "header no JSON": lambda i: raw_header(i, "alg=EdDSA"),
    "claims an array": lambda i: i.sign(json.dumps(HEADER), "[]"),
    "claims no UTF-8": lambda i: i.sign(json.dumps(HEADER), b'{"sub":"\xff"}'),
    "claims in UTF-16": lambda i: i.sign(json.dumps(HEADER), json.dumps(i.claims()).encode("utf-16")),
    "JWE in place of JWS": lambda i: ".".join([*parts(i)[:2], "AAAA", "AAAA", "AAAA"]),
    "JWE with direct encryption": lambda _: b64(b'{"alg":"dir","enc":"A256GCM"}') + "..AAAA.AAAA.AAAA",
    "JWS in JSON": lambda i: json.dumps(dict(zip(("protected", "payload", "signature"), parts(i), strict=True))),
    "nested token": lambda i: i.sign(json.dumps({**HEADER, "cty": "JWT"}), i.token()),
    "token as claims": lambda i: i.sign(json.dumps(HEADER), i.token()),
    "two tokens": lambda i: f"{i.token()}.{i.token()}",
    "detached content": lambda i: with_part(i, 1, lambda _: ""),
}
BEARERS: dict[str, Attack] = {
    "no scheme": lambda i: i.token(),
    "other scheme": lambda i: f"Basic {i.token()}",
    "scheme glued": lambda i: f"Bearer{i.token()}",
    "scheme twice": lambda i: f"Bearer Bearer {i.token()}",
    "scheme in wide letters": lambda i: f"\uff22earer {i.token()}",
    "scheme with a dotless letter": lambda i: f"Be\u0430rer {i.token()}",
    "no-break space": lambda i: f"Bearer\u00a0{i.token()}",
    "tabulator": lambda i: f"Bearer\t{i.token()}",
    "space in front": lambda i: f" Bearer {i.token()}",
    "space behind": lambda i: f"Bearer {i.token()} ",
    "line end behind": lambda i: f"Bearer {i.token()}\n",
    "header twice, joined": lambda i: f"Bearer {i.token()}, Bearer {i.token()}",
    "header twice, an empty one first": lambda i: f", Bearer {i.token()}",
    "in quotes": lambda i: f'Bearer "{i.token()}"',
    "only the scheme": lambda _: "Bearer ",
    "with a parameter": lambda i: f"Bearer token={i.token()}",
    "half a surrogate pair": lambda i: f"Bearer \udc80{i.token()}",
}
ATTACKS: dict[str, Attack] = {
    **{name: lambda i, a=attack: f"Bearer {a(i)}" for name, attack in TOKENS.items()},  # type: ignore[misc]
    **BEARERS,
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack_is_refused(name: str, room: AccessRoom, issuer: Any) -> None:
    with pytest.raises(Denied) as refused:
        await room.authenticate(ATTACKS[name](issuer), "10.0.0.7")
    assert refused.value.stable_code == "E4300"
    assert issuer.token()[:20] not in str(refused.value)


def test_attacks_are_many() -> None:
    assert len(ATTACKS) >= 100


SOUND: dict[str, Attack] = {
    "EdDSA": lambda i: f"Bearer {i.token()}",
    "Ed25519, as RFC 9864 calls it": lambda i: f"Bearer {i.token(header={'alg': 'Ed25519'})}",
    "ES256": lambda i: f"Bearer {i.token('ES256')}",
    "RS256": lambda i: f"Bearer {i.token('RS256')}",
    "scheme in small letters": lambda i: f"bearer {i.token()}",
    "aud a list with us": lambda i: f"Bearer {i.token(aud=['other', 'framegate'])}",
    "typ of an access token": lambda i: f"Bearer {i.token(header={'typ': 'at+jwt'})}",
    "typ missing": lambda i: f"Bearer {i.token(header={'typ': None})}",
    "thumbprint in the header": lambda i: f"Bearer {i.token(header={'x5t': 'AAAA'})}",
    "jti missing": lambda i: f"Bearer {i.token(jti=None)}",
    "claims as nested as providers have them": lambda i: f"Bearer {i.token(access=[{'roles': ['a']}] * 100)}",
    "just expired, within the leeway": lambda i: f"Bearer {i.token(exp=i.now_s - jwt.LEEWAY_S + 1, iat=i.now_s - 99)}",
    "time with a fraction": lambda i: f"Bearer {i.token(exp=i.now_s + 0.5)}",
}


@pytest.mark.parametrize("name", SOUND)
async def test_sound_token_passes(name: str, room: AccessRoom, issuer: Any) -> None:
    principal = await room.authenticate(SOUND[name](issuer), "10.0.0.7")
    assert principal.name == "alice@https://idp.example/realms/plant"
    assert principal.may(Permission.TAGS_WRITE, "pump7.speed")
    assert principal.may(Permission.TAGS_READ)
    assert not principal.may(Permission.CONFIG_APPLY)
    assert (principal.tenant, room.is_valid(principal)) == ("gas", True)


@pytest.mark.parametrize(("scope", "writes"), [("read", False), ("write", True), ("read  write", True)])
async def test_scope_says_what_is_allowed(scope: str, *, writes: bool, room: AccessRoom, issuer: Any) -> None:
    principal = await room.authenticate(f"Bearer {issuer.token(scope=scope)}", "10.0.0.7")
    assert principal.may(Permission.TAGS_WRITE) == writes
    assert principal.may(Permission.TAGS_READ) == ("read" in scope)


async def test_gateway_name_is_the_audience_where_none_is_named(
    tmp_path: Any, issuer: Any, clock: FakeClock, log: CollectingLog
) -> None:
    options = IssuerOptions("https://idp.example/realms/plant", issuer.keys)
    room = open_access(tmp_path, "gw2", "gas", [options], clock, log)
    await room.authenticate(f"Bearer {issuer.token(aud='gw2')}", "10.0.0.7")
    with pytest.raises(Denied):
        await room.authenticate(f"Bearer {issuer.token(aud='gw1')}", "10.0.0.7")
    await room.close()


async def test_revoked_jti_is_refused_at_once(room: AccessRoom, issuer: Any) -> None:
    header = f"Bearer {issuer.token()}"
    principal = await room.authenticate(header, "10.0.0.7")
    await room.revoke_jwt("j1")
    assert not room.is_valid(principal)
    with pytest.raises(Denied):
        await room.authenticate(header, "10.0.0.7")
    assert room.is_valid(await room.authenticate(f"Bearer {issuer.token(jti='j2')}", "10.0.0.7"))


async def test_rotated_key_is_refused_and_the_others_go_on(room: AccessRoom, issuer: Any, log: CollectingLog) -> None:
    old, other = f"Bearer {issuer.token()}", f"Bearer {issuer.token('ES256')}"
    principal, neighbour = await room.authenticate(old, "10.0.0.7"), await room.authenticate(other, "10.0.0.7")
    issuer.publish("ES256", "RS256")
    assert not room.is_valid(principal)
    assert room.is_valid(neighbour)
    with pytest.raises(Denied):
        await room.authenticate(old, "10.0.0.7")
    issuer.publish()
    assert room.is_valid(await room.authenticate(old, "10.0.0.7"))
    assert [values["keys"] for values in log.events("access_keys_read")] == [3, 2, 3]


@pytest.mark.parametrize(
    "keys",
    [
        "",
        "{}",
        '{"keys": []}',
        '{"keys": [{"kty": "oct", "k": "AAAA", "kid": "eddsa"}]}',
        '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "eddsa"}]}',
        '{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "rs256"}]}',
        '{"keys": [7]}',
    ],
)
async def test_damaged_key_set_lets_nobody_in_and_is_told_once(
    keys: str, room: AccessRoom, issuer: Any, log: CollectingLog
) -> None:
    await room.authenticate(f"Bearer {issuer.token()}", "10.0.0.7")
    issuer.keys.write_text(keys)
    for _ in range(3):
        with pytest.raises(Denied):
            await room.authenticate(f"Bearer {issuer.token()}", "10.0.0.7")
    (told,) = log.events("access_keys_unusable")
    assert "E4302" in told["reason"] or "key set" in told["reason"]


def jwks(tmp_path: Path, *keys: dict[str, Any]) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": keys}))
    return path


def test_key_that_must_not_be_there_refuses_the_whole_set(tmp_path: Path, issuer: Any) -> None:
    ours = jwk_of(issuer, "eddsa")
    weak = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    pair = Ed25519PrivateKey.generate()
    point, scalar = b64(pair.public_key().public_bytes_raw()), b64(pair.private_bytes_raw())
    private = {"kty": "OKP", "crv": "Ed25519", "kid": "p", "x": point, "d": scalar}
    cases: list[tuple[dict[str, Any], str]] = [
        (private, "shared or private"),
        ({"kty": "oct", "k": b64(bytes(32)), "kid": "s"}, "shared or private"),
        ({"kty": "RSA", "kid": "w", "e": "AQAB", "n": b64(weak.n.to_bytes(128))}, "2048 to 8192 bits"),
        ({"kty": "RSA", "kid": "w", "e": "AQAB", "n": b64(b"\xff" * 2048)}, "2048 to 8192 bits"),
        (ours, "same kid"),
        ({**ours, "kid": "k" * 129}, "128 characters"),
        ({**ours, "kid": 7}, "128 characters"),
        ({**ours, "kid": "y", "x": "AAAA"}, "damaged"),
    ]
    for extra, why in cases:
        with pytest.raises(Misconfigured, match=why) as error:
            read_keys(jwks(tmp_path, ours, extra))
        assert error.value.stable_code == "E4302"
    with pytest.raises(Misconfigured, match="more than 32"):
        read_keys(jwks(tmp_path, *({**ours, "kid": str(number)} for number in range(33))))


def test_keys_for_something_else_are_passed_over(tmp_path: Path, issuer: Any) -> None:
    ours = jwk_of(issuer, "eddsa")
    others: list[dict[str, Any]] = [
        {"kty": "EC", "crv": "P-521", "kid": "a"},
        {"kty": "AKP", "kid": "b"},
        {"kty": ["OKP"], "kid": "c"},
        {**ours, "kid": "d", "use": "enc"},
        {**ours, "kid": "e", "key_ops": ["sign"]},
        {**ours, "kid": "f", "alg": "RS256"},
        {**jwk_of(issuer, "rs256"), "kid": "g", "alg": "PS256"},
    ]
    assert [key.kid for key in read_keys(jwks(tmp_path, *others, ours))] == ["eddsa"]
    assert [key.kid for key in read_keys(issuer.keys, ["RS256", "EdDSA"])] == ["eddsa", "rs256"]
    with pytest.raises(Misconfigured, match="no key for"):
        read_keys(jwks(tmp_path, *others))


async def test_cached_token_ends_with_its_time_also_when_the_clock_jumps(
    room: AccessRoom, issuer: Any, clock: FakeClock
) -> None:
    header = f"Bearer {issuer.token()}"
    principal = await room.authenticate(header, "10.0.0.7")
    clock.step_wall(600 + jwt.LEEWAY_S)
    assert not room.is_valid(principal)
    with pytest.raises(Denied):
        await room.authenticate(header, "10.0.0.7")


async def test_verified_tokens_are_remembered_within_a_bound(
    room: AccessRoom, issuer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwt, "CACHE_MAX", 2)
    checked = []
    sound = jwt._is_signed

    def is_signed(signed: bytes, signature: bytes, public: IssuerKey) -> bool:
        checked.append(signed)
        return sound(signed, signature, public)

    monkeypatch.setattr(jwt, "_is_signed", is_signed)
    first = await room.authenticate(f"Bearer {issuer.token(sub='a')}", "10.0.0.7")
    for _ in range(5):
        await room.authenticate(f"Bearer {issuer.token(sub='a')}", "10.0.0.7")
    assert len(checked) == 1
    for name in ("b", "c"):
        await room.authenticate(f"Bearer {issuer.token(sub=name)}", "10.0.0.7")
    assert not room.is_valid(first)
    assert room.is_valid(await room.authenticate(f"Bearer {issuer.token(sub='a')}", "10.0.0.7"))
