"""Plugins over the API: uploaded in pieces, accepted by the digest that was shown, and only by an admin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from framegate.api.connection import BODY_BYTES_MAX
from framegate.api.plugins import PACKAGE_BYTES_MAX
from framegate.contract.errors import Busy, GatewayError, Misconfigured

PACKAGE = b"PK\x03\x04" + b"x" * 100_000
KIND = {"content-type": "application/octet-stream"}


async def test_list_shows_what_is_active_and_what_waits(asking: Any, stage: Any) -> None:
    stage.face.plugins.asks = ("keeps files of its own",)
    await asking("POST", "/api/v1/plugins", content=PACKAGE, headers=KIND)
    found = (await asking("GET", "/api/v1/plugins", "viewer")).json()
    assert [row["name"] for row in found["plugins"]] == ["modbus", "acme"]
    assert [row["asks"] for row in found["staged"]] == [["keeps files of its own"]]
    one = (await asking("GET", "/api/v1/plugins/acme", "viewer")).json()
    assert (one["active"]["shape"], one["staged"]["version"]) == ("native", "1.3.0")
    assert (await asking("GET", "/api/v1/plugins/modbus", "viewer")).json()["staged"] is None
    assert (await asking("GET", "/api/v1/plugins/nix", "viewer")).status_code == 404


async def test_install_that_asks_nothing_more_is_in_force_at_once(asking: Any, stage: Any) -> None:
    answer = await asking("POST", "/api/v1/plugins", content=PACKAGE, headers=KIND)
    assert answer.status_code == 200
    assert (answer.json()["before"], answer.json()["version"]) == ("1.2.0", "1.3.0")
    assert stage.face.plugins.received == PACKAGE
    assert {by.partition(":")[0] for by in stage.face.plugins.by} == {"rest"}


@pytest.mark.parametrize("body", [PACKAGE, b""])
async def test_install_that_asks_more_waits_until_that_digest_comes_back(asking: Any, stage: Any, body: bytes) -> None:
    plugins = stage.face.plugins
    plugins.asks = ("opens network connections itself",)
    shown = await asking("POST", "/api/v1/plugins", content=PACKAGE, headers=KIND)
    assert shown.status_code == 202
    assert shown.json()["asks"] == ["opens network connections itself"]
    assert plugins.active["acme"].version == "1.2.0"
    wrong = await asking("POST", "/api/v1/plugins?accept=0000", content=body, headers=KIND)
    assert (wrong.status_code, wrong.json()["code"]) == (409, "E4657")
    accept = shown.json()["accept"]
    done = await asking("POST", f"/api/v1/plugins?accept={accept}", content=body, headers=KIND)
    assert done.status_code == 200
    assert plugins.active["acme"].version == "1.3.0"


async def test_install_nothing_and_nothing_waits_is_refused(asking: Any) -> None:
    assert (await asking("POST", "/api/v1/plugins")).json()["code"] == "E4657"


async def test_install_too_large_is_refused_by_what_it_announces(asking: Any, stage: Any) -> None:
    headers = {**KIND, "content-length": str(PACKAGE_BYTES_MAX + 1)}
    answer = await asking("POST", "/api/v1/plugins", content=PACKAGE, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "E4232")
    assert stage.face.plugins.received == b""
    assert PACKAGE_BYTES_MAX < BODY_BYTES_MAX


async def test_rollback_and_remove(asking: Any, stage: Any) -> None:
    assert (await asking("POST", "/api/v1/plugins/acme/rollback")).json()["version"] == "1.1.0"
    assert (await asking("DELETE", "/api/v1/plugins/acme")).json()["version"] == ""
    assert (await asking("DELETE", "/api/v1/plugins/nix")).status_code == 404
    done = [(entry.action, entry.target, entry.outcome) for entry in stage.audit.entries]
    assert ("plugins.rollback", "acme", "begun") in done
    assert ("plugins.remove", "acme", "ok") in done
    assert ("plugins.remove", "nix", "E4656") in done


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Misconfigured("undone", code="E4653"), 409),
        (Misconfigured("the tables do not fit it", code="E4664"), 422),
        (Misconfigured("rows use it", code="E4659"), 409),
        (Misconfigured("not signed by a trusted key", code="E4610"), 422),
        (Busy("another", wait_s=1.0, code="E4661"), 503),
    ],
)
async def test_refusal_is_a_problem_with_its_code(asking: Any, stage: Any, error: GatewayError, status: int) -> None:
    stage.face.plugins.trouble = error
    answer = await asking("POST", "/api/v1/plugins", content=PACKAGE, headers=KIND)
    assert (answer.status_code, answer.json()["code"]) == (status, error.stable_code)


@pytest.mark.parametrize("who", ["viewer", "operator", "engineer"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/v1/plugins"), ("POST", "/api/v1/plugins/acme/rollback"), ("DELETE", "/api/v1/plugins/acme")],
)
async def test_change_by_whoever_is_no_admin_is_denied(
    asking: Any, stage: Any, who: str, method: str, path: str
) -> None:
    assert (await asking(method, path, who)).status_code == 403
    assert stage.face.plugins.by == []


async def test_install_in_pieces_over_a_server_arrives_whole(asking: Any, stage: Any) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(PACKAGE), 7_001):
            yield PACKAGE[at : at + 7_001]

    answer = await asking("POST", "/api/v1/plugins", content=pieces(), headers=KIND)
    assert answer.status_code == 200
    assert stage.face.plugins.received == PACKAGE
