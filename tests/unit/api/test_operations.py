"""Every operation of the API, and everything that may be refused, in this process and without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from framegate.api import app
from framegate.api.operation import PUBLIC, Operation
from framegate.api.operations import OPERATIONS
from framegate.api.plant import livez
from framegate.api.rate import Rates
from framegate.config.problems import PlacedProblem
from framegate.contract.command import Outcome

Ask = Callable[..., Awaitable[Any]]
API = "/api/v1"


def told(answer: Any) -> tuple[int, str]:
    """Status and code of a problem, which has all its parts."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == answer.status_code
    assert {"type", "title", "detail", "hint", "docs"} <= set(body)
    assert "Traceback" not in answer.text
    return answer.status_code, body["code"]


# -- tags -------------------------------------------------------------------------------------------------------------


async def test_tags_come_in_pages_by_cursor(asking: Ask) -> None:
    first = (await asking("GET", f"{API}/tags", "viewer", params={"limit": 4})).json()
    assert [row["name"] for row in first["tags"]] == ["t1", "t2", "line/4 é", "state"]
    rest = (await asking("GET", f"{API}/tags", "viewer", params={"limit": 4, "cursor": first["next"]})).json()
    assert [row["name"] for row in rest["tags"]] == ["big", "blob"]
    assert rest["next"] is None


async def test_tags_with_a_filter_and_values_of_every_kind(asking: Ask) -> None:
    rows = (await asking("GET", f"{API}/tags", params={"filter": "*[ge]"})).json()["tags"]
    assert [(row["name"], row["value"]) for row in rows] == [("state", "open"), ("big", 2**60)]
    assert (await asking("GET", f"{API}/tags/blob")).json()["value"] == "AP8="


async def test_limited_principal_sees_and_writes_its_own_tags_only(stage: Any, asking: Ask) -> None:
    stage.mine = stage.access.add("operator", ("t1", "s*"), "mine")
    page = (await asking("GET", f"{API}/tags", "mine", params={"limit": 2})).json()
    assert [row["name"] for row in page["tags"]] == ["t1", "state"]
    assert told(await asking("GET", f"{API}/tags/t2", "mine")) == (404, "E4014")
    assert told(await asking("PUT", f"{API}/tags/t2", "mine", json={"value": 1})) == (403, "E4243")
    assert stage.audit.story[-1] == ("mine", "tags.write", "t2", "denied")
    both = await asking("PUT", f"{API}/tags", "mine", json=[{"tag": "t1", "value": 1}, {"tag": "t2", "value": 1}])
    assert [item["status"] for item in both.json()["items"]] == [200, 403]
    assert [command.tag for command in stage.desk.sent] == ["t1"]
    assert (await asking("GET", f"{API}/alarms", "mine")).json()["alarms"][0]["id"] == "hot.t1"
    assert len((await asking("GET", f"{API}/alarms", "mine")).json()["alarms"]) == 1
    assert told(await asking("POST", f"{API}/alarms/hot.t2", "mine", json={"action": "ack"})) == (404, "E5034")
    frames = (await asking("GET", f"{API}/frames", "mine", params={"range": "1-20"})).json()["frames"]
    assert {row["tag"] for row in frames} == {"t1"}


async def test_tag_with_a_slash_is_one_segment(asking: Ask) -> None:
    assert (await asking("GET", f"{API}/tags/line%2F4%20%C3%A9")).json()["id"] == 3
    assert told(await asking("GET", f"{API}/tags/line/4")) == (404, "E4230")


async def test_history_goes_back_by_cursor(asking: Ask) -> None:
    page = (await asking("GET", f"{API}/tags/t1/history", params={"limit": 4})).json()
    assert [row["position"] for row in page["rows"]] == [20, 18, 16, 14]
    older = (await asking("GET", f"{API}/tags/t1/history", params={"limit": 100, "cursor": page["next"]})).json()
    assert [row["position"] for row in older["rows"]] == [12, 10, 8, 6, 4, 2]
    assert older["next"] is None


# -- writes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [f"{API}/tags/t1", "/tags/t1"])
async def test_put_confirmed_is_200_with_the_record(stage: Any, asking: Ask, path: str) -> None:
    answer = await asking("PUT", path, "operator", json={"value": 42.5, "verify": True, "ttl_s": 3})
    body = answer.json()
    assert (answer.status_code, body["outcome"], body["origin"]) == (200, "CONFIRMED", "rest:operator")
    assert (stage.desk.sent[0].value, stage.desk.sent[0].verify, stage.desk.sent[0].ttl_s) == (42.5, True, 3.0)
    assert len(body["id"]) == 26
    read = await asking("GET", answer.headers["location"], "viewer")
    assert read.json() == body


async def test_put_under_way_is_202_and_waits_only_so_long(stage: Any, asking: Ask) -> None:
    stage.desk.held.add("t1")
    answer = await asking("PUT", f"{API}/tags/t1", json={"value": 1}, params={"wait": 0.05})
    assert (answer.status_code, answer.json()["outcome"], answer.json()["stage"]) == (202, None, "accepted")
    waiting = asyncio.ensure_future(asking("PUT", f"{API}/tags/t1", json={"value": 2}, params={"wait": 20}))
    await stage.desk.waiting(2)
    await stage.desk.release("t1")
    assert (await waiting).status_code == 200


@pytest.mark.parametrize(
    ("outcome", "code", "status"),
    [
        (Outcome.UNKNOWN, "E2100", 504), (Outcome.REJECTED, "E1109", 422), (Outcome.REJECTED, "E4014", 404),
        (Outcome.REJECTED, "E4300", 403), (Outcome.REJECTED, "E1113", 422), (Outcome.REJECTED, "E4203", 409),
        (Outcome.NOT_SENT, "E2600", 409), (Outcome.NOT_SENT, "E2000", 503),
    ],
)  # fmt: skip
async def test_put_that_is_not_confirmed_says_why(
    stage: Any, asking: Ask, outcome: Outcome, code: str, status: int
) -> None:
    stage.desk.outcomes["t1"] = (outcome, code, "so it is")
    answer = await asking("PUT", f"{API}/tags/t1", json={"value": 1})
    assert told(answer) == (status, code)
    assert answer.json()["command"]["outcome"] == outcome.name
    assert answer.json()["detail"] == f"{outcome.name}: so it is"


async def test_idempotency_key_is_the_id_of_the_command(stage: Any, asking: Ask) -> None:
    key = {"Idempotency-Key": "shift-7.1"}
    first = await asking("PUT", f"{API}/tags/t1", json={"value": 1}, headers=key)
    again = await asking("PUT", f"{API}/tags/t1", json={"value": 1}, headers=key)
    other = await asking("PUT", f"{API}/tags/t1", json={"value": 2}, headers=key)
    assert first.json() == again.json()
    assert told(other) == (409, "E4203")
    assert len(stage.desk.sent) == 1
    bad = await asking("PUT", f"{API}/tags/t1", json={"value": 2}, headers={"Idempotency-Key": "a b"})
    assert told(bad) == (422, "E4235")


async def test_batch_is_200_when_all_are_confirmed_else_207(stage: Any, asking: Ask) -> None:
    items = [{"tag": "t1", "value": 1}, {"tag": "t2", "value": "on", "id": "mine"}]
    answer = await asking("PUT", f"{API}/tags", json=items, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, [item["command"]["id"] for item in answer.json()["items"]]) == (200, ["k.0", "mine"])
    stage.desk.outcomes["t2"] = (Outcome.UNKNOWN, "E2100", "no answer")
    answer = await asking("PUT", f"{API}/tags", json=[{"tag": "t1", "value": 1}, {"tag": "t2", "value": 2}])
    assert (answer.status_code, [item["status"] for item in answer.json()["items"]]) == (207, [200, 504])


async def test_commands_are_listed_newest_first_by_cursor(asking: Ask) -> None:
    for number in range(5):
        await asking("PUT", f"{API}/tags/t1", json={"value": number}, headers={"Idempotency-Key": f"c{number}"})
    page = (await asking("GET", f"{API}/commands", "viewer", params={"limit": 3})).json()
    assert [one["id"] for one in page["commands"]] == ["c4", "c3", "c2"]
    rest = (await asking("GET", f"{API}/commands", params={"limit": 3, "cursor": page["next"]})).json()
    assert ([one["id"] for one in rest["commands"]], rest["next"]) == (["c1", "c0"], None)
    assert told(await asking("GET", f"{API}/commands/nix")) == (404, "E4219")


# -- audit ------------------------------------------------------------------------------------------------------------


async def test_change_is_noted_before_and_after(stage: Any, asking: Ask) -> None:
    await asking("PUT", f"{API}/tags/t1", "operator", json={"value": 42.5})
    await asking("PUT", f"{API}/tags/t1", "viewer", json={"value": 1})
    assert stage.audit.story == [
        ("operator", "tags.write", "t1", "begun"),
        ("operator", "tags.write", "t1", "ok"),
        ("viewer", "tags.write", "", "denied"),
    ]
    begun, ended, _ = stage.audit.entries
    assert begun.details["request"] == ended.details["request"]
    assert (begun.details["body"]["value"], ended.details["outcome"]) == (42.5, "CONFIRMED")
    assert begun.peer == "127.0.0.1"


async def test_change_that_cannot_be_audited_is_not_done(stage: Any, asking: Ask) -> None:
    stage.audit.room = 0
    assert told(await asking("PUT", f"{API}/tags/t1", json={"value": 1})) == (503, "E4306")
    assert stage.desk.records == {}


async def test_outcome_that_cannot_be_audited_is_logged_and_told_all_the_same(stage: Any, asking: Ask) -> None:
    stage.audit.room = 1
    assert (await asking("PUT", f"{API}/tags/t1", json={"value": 1})).status_code == 200
    assert stage.log.events("api_audit_failed")[0]["operation"] == "tags.write"


async def test_credentials_that_end_while_the_body_comes_do_nothing(stage: Any) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"value"'
        stage.access.revoked.add("operator")
        yield b": 1}"

    headers = {"content-type": "application/json"}
    async with stage.client(stage.operator) as client:
        answer = await client.put(f"{API}/tags/t1", content=slowly(), headers=headers)
    assert told(answer) == (401, "E4300")
    assert stage.desk.records == {}


async def test_bug_within_a_change_is_audited(stage: Any, asking: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.desk, "submit", lambda *_: 1 // 0)
    assert told(await asking("PUT", f"{API}/tags/t1", json={"value": 1})) == (500, "E4239")
    assert [outcome for *_, outcome in stage.audit.story] == ["begun", "E4239"]


async def test_every_change_of_the_table_is_audited_and_reads_are_not(stage: Any, asking: Ask) -> None:
    changes = {one.id for one in OPERATIONS if one.is_change}
    assert changes == {one.id for one in OPERATIONS if one.method != "GET"} - {"config.validate", "config.diff"}
    await asking("GET", f"{API}/tags")
    assert stage.audit.entries == []


# -- plant, frames, configuration -------------------------------------------------------------------------------------


async def test_plant_is_shown(asking: Ask) -> None:
    assert [row["name"] for row in (await asking("GET", f"{API}/devices")).json()["devices"]] == ["pump", "meter"]
    assert (await asking("GET", f"{API}/connectors")).json()["connectors"][0]["lag_rows"] == 200
    assert (await asking("GET", f"{API}/wal")).json()["wal"]["durable"] == 7_200
    assert (await asking("GET", f"{API}/gateway")).json()["name"] == "gw1"


async def test_alarm_is_operated_in_the_name_of_the_principal(stage: Any, asking: Ask) -> None:
    answer = await asking("POST", f"{API}/alarms/hot.t1", "operator", json={"action": "shelve", "seconds": 60})
    assert answer.json()["is_acknowledged"] is True
    assert stage.rules.done == [("hot.t1", "shelve", "rest:operator", "", 60.0)]
    assert told(await asking("POST", f"{API}/alarms/hot.t1", json={"action": "unshelve"})) == (409, "E5035")
    assert told(await asking("POST", f"{API}/alarms/cold.x", json={"action": "ack"})) == (404, "E5034")
    page = (await asking("GET", f"{API}/alarms", params={"limit": 1})).json()
    assert page["next"] == "hot.t1"


async def test_frames_come_in_pages_with_their_gaps(asking: Ask) -> None:
    page = (await asking("GET", f"{API}/frames", params={"range": "3-10", "limit": 4})).json()
    assert [row["position"] for row in page["frames"]] == [3, 4, 6]
    assert page["gaps"] == [{"first": 5, "last": 5, "reason": "retention", "detail": "old"}]
    assert (page["next"], page["first"], page["last"]) == (7, 1, 20)
    beyond = (await asking("GET", f"{API}/frames", params={"range": "21-30"})).json()
    assert (beyond["frames"], beyond["next"]) == ([], None)


async def test_frames_as_ndjson(asking: Ask) -> None:
    answer = await asking("GET", f"{API}/frames", params={"range": "4-6"}, headers={"Accept": "application/x-ndjson"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line.get("position", line.get("first")) for line in lines] == [4, 6, 5]


@pytest.mark.parametrize("range_", ["9-3", "0-3", "1", "a-b", f"1-{2**64}", ""])
async def test_range_that_is_none_is_refused(asking: Ask, range_: str) -> None:
    assert told(await asking("GET", f"{API}/frames", params={"range": range_})) == (422, "E4235")


async def test_rewind_is_asked_of_the_gateway(asking: Ask) -> None:
    answer = await asking("POST", f"{API}/frames", json={"connector": "cloud", "first": 41})
    assert (answer.json()["rows"], answer.json()["by"]) == (60, "rest:admin")
    both = {"connector": "cloud", "first": 1, "since_ns": 2}
    assert told(await asking("POST", f"{API}/frames", json=both)) == (422, "E4234")
    assert told(await asking("POST", f"{API}/frames", json={"connector": "nix", "first": 1})) == (422, "E4030")


async def test_config_is_shown_without_secrets_and_put_back_by_etag(stage: Any, asking: Ask) -> None:
    shown = await asking("GET", f"{API}/config", "engineer")
    assert "hunter2" not in shown.text
    assert shown.headers["etag"] == shown.json()["etag"] == '"g12"'
    body = {"tables": {"drivers": "drivers: {a: {}}\n"}, "reason": "pump 7"}
    assert told(await asking("PUT", f"{API}/config", json=body)) == (428, "E4238")
    assert told(await asking("PUT", f"{API}/config", json=body, headers={"If-Match": "x"})) == (422, "E4235")
    done = await asking("PUT", f"{API}/config", json=body, headers={"If-Match": shown.headers["etag"]})
    assert (done.json()["generation"], done.headers["etag"]) == (13, '"g13"')
    assert stage.tables.texts["drivers"] == b"drivers: {a: {}}\n"
    assert told(await asking("PUT", f"{API}/config", json=body, headers={"If-Match": '"g12"'})) == (412, "E4237")
    assert stage.audit.entries[-2].details["reason"] == "pump 7"
    assert "drivers: {a" not in repr(stage.audit.entries)


async def test_config_with_mistakes_names_each_place(stage: Any, asking: Ask) -> None:
    stage.tables.mistakes = [PlacedProblem("drivers", ("drivers", "a"), "E1107", "the key plugin is missing", 3, 5)]
    body = {"tables": {"drivers": "x"}}
    verdict = (await asking("POST", f"{API}/config/validate", "engineer", json=body)).json()
    assert (verdict["is_valid"], verdict["problems"][0]["line"]) == (False, 3)
    refused = await asking("PUT", f"{API}/config", json=body, headers={"If-Match": "*"})
    assert told(refused) == (422, "E1000")
    assert refused.json()["problems"][0]["path"] == ["drivers", "a"]
    assert told(await asking("POST", f"{API}/config/diff", json=body)) == (422, "E1000")


async def test_config_diff_rollback_and_history(asking: Ask) -> None:
    steps = (await asking("POST", f"{API}/config/diff", "engineer", json={"tables": {}})).json()["steps"]
    assert steps == ["device pump restarts"]
    assert (await asking("POST", f"{API}/config/rollback", json={"generation": 3})).json()["generation"] == 13
    assert told(await asking("POST", f"{API}/config/rollback", json={"generation": 99})) == (404, "E4032")
    assert (await asking("GET", f"{API}/config/history")).json()["generations"][0]["number"] == 13


# -- probes, documents ------------------------------------------------------------------------------------------------


async def test_probes_need_no_credentials_and_a_silent_device_is_ready(stage: Any, asking: Ask) -> None:
    assert (await asking("GET", "/livez", "")).text == "alive\n"
    assert (await asking("GET", "/readyz", "")).text == "ready\n"  # the face has a device in quarantine
    stage.problem = "E3011 the disk is full"
    assert told(await asking("GET", "/readyz", "")) == (503, "E4251")
    assert told(await asking("GET", "/metrics", "")) == (401, "E4300")
    assert (await asking("GET", "/metrics", "viewer")).text == "edge_up 1\n"


async def test_documents_are_open(asking: Ask) -> None:
    assert (await asking("GET", f"{API}/openapi.json", "")).json()["openapi"] == "3.1.0"
    meaning = (await asking("GET", f"{API}/errors/E4203", "")).json()
    assert meaning["name"] == "CommandConflict"
    assert told(await asking("GET", f"{API}/errors/E99", "")) == (404, "E4230")


# -- refusals ---------------------------------------------------------------------------------------------------------


async def test_nobody_gets_nothing(asking: Ask) -> None:
    for one in OPERATIONS:
        if one.id not in PUBLIC:
            path = one.full_path.replace("{", "").replace("}", "")
            answer = await asking(one.method, path, "", json={})
            assert told(answer) == (401, "E4300"), one.id
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_revoked_credentials_are_none(stage: Any, asking: Ask) -> None:
    stage.access.revoked.add("viewer")
    assert told(await asking("GET", f"{API}/tags", "viewer")) == (401, "E4300")


def test_operation_without_a_permission_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="name its permission"):
        Operation("tags.burn", "PUT", "/burn", livez, None, "", {200: bytes})


@pytest.mark.parametrize(
    ("method", "path", "more", "expected"),
    [
        ("GET", "/nix", {}, (404, "E4230")),
        ("GET", f"{API}/tags/", {}, (404, "E4230")),
        ("GET", f"{API}/live", {}, (404, "E4230")),
        ("DELETE", f"{API}/tags/t1", {}, (405, "E4231")),
        ("PUT", f"{API}/tags/t1", {"content": b'{"value":1}'}, (415, "E4233")),
        ("PUT", f"{API}/tags/t1", {"content": b"{", "headers": {"content-type": "application/json"}}, (422, "E4234")),
        ("PUT", f"{API}/tags/t1", {"json": {"value": None}}, (422, "E4234")),
        ("PUT", f"{API}/tags/t1", {"json": {"value": 1, "qos": 2}}, (422, "E4234")),
        ("PUT", f"{API}/tags/t1", {"json": {"value": 2**64}}, (422, "E4234")),
        ("PUT", f"{API}/tags/t1", {"json": {"value": "x" * 300_000}}, (413, "E4232")),
        ("PUT", f"{API}/tags/t1", {"json": {"value": 1}, "params": {"wait": 31}}, (422, "E4235")),
        ("PUT", f"{API}/tags", {"json": []}, (422, "E4234")),
        ("PUT", f"{API}/tags", {"json": [{"tag": "t", "value": 1}] * 1_001}, (422, "E4234")),
        ("GET", f"{API}/tags", {"params": {"limit": 501}}, (422, "E4235")),
        ("GET", f"{API}/tags", {"params": {"offset": 3}}, (422, "E4235")),
    ],
)
async def test_request_that_cannot_be_is_refused_in_words(
    asking: Ask, method: str, path: str, more: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert told(await asking(method, path, **more)) == expected


async def test_method_not_allowed_names_all_that_are(asking: Ask) -> None:
    assert (await asking("DELETE", f"{API}/tags/t1")).headers["allow"] == "GET, PUT"
    assert (await asking("HEAD", f"{API}/tags/t1")).status_code == 200


async def test_too_many_requests_are_told_when_to_come_again(stage: Any, asking: Ask) -> None:
    stage.app._rates = Rates(per_s=0.001, burst=3.0)
    answers = [await asking("GET", f"{API}/tags/t1", "viewer") for _ in range(4)]
    assert [answer.status_code for answer in answers[:3]] == [200] * 3
    assert told(answers[3]) == (429, "E4236")
    assert 990 < int(answers[3].headers["retry-after"]) <= 1_000
    assert (await asking("GET", f"{API}/tags/t1", "operator")).status_code == 200


async def test_store_that_fails_is_503_and_a_bug_500_without_its_trace(
    stage: Any, asking: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.desk.is_broken = True
    answer = await asking("PUT", f"{API}/tags/t1", json={"value": 1})
    assert (told(answer), answer.headers["retry-after"]) == ((503, "E3011"), "1")
    assert stage.audit.story[-1][3] == "E3011"
    monkeypatch.setattr(stage.face, "value", lambda _: 1 // 0)
    answer = await asking("GET", f"{API}/tags/t1")
    assert told(answer) == (500, "E4239")
    assert stage.log.events("api_failed")[0]["request"] == answer.json()["request"]


async def test_bodies_under_way_share_one_memory_and_give_it_back(
    stage: Any, asking: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = stage.app._memory
    before = memory.left
    for value in (1, "x" * 300_000, None):
        await asking("PUT", f"{API}/tags/t1", json={"value": value})
    assert memory.left == before
    monkeypatch.setattr(memory, "left", 10)
    answer = await asking("PUT", f"{API}/tags/t1", json={"value": 1})
    assert (told(answer), answer.headers["retry-after"]) == ((503, "E4251"), "1")


async def test_requests_under_way_have_a_bound(stage: Any, asking: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "IN_FLIGHT_MAX", 2)
    stage.desk.held.add("t1")
    waiting = [
        asyncio.ensure_future(asking("PUT", f"{API}/tags/t1", json={"value": number}, params={"wait": 20}))
        for number in range(2)
    ]
    await stage.desk.waiting(2)
    assert told(await asking("GET", f"{API}/tags/t1")) == (503, "E4251")
    await stage.desk.release("t1")
    assert [(await one).status_code for one in waiting] == [200, 200]
    assert (await asking("GET", f"{API}/tags/t1")).status_code == 200


async def test_requests_are_counted_by_operation(stage: Any, asking: Ask) -> None:
    await asking("GET", f"{API}/tags/t1")
    await asking("GET", f"{API}/tags/nix")
    counter = stage.metrics.counter
    assert counter("edge_api_requests_total", operation="tags.read", status="2xx").value == 1
    assert counter("edge_api_requests_total", operation="tags.read", status="4xx").value == 1
