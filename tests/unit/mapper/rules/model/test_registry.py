"""The registry's client against a server that answers as MLflow 3.17 does, and against hostile ones.

The forms of the answers were taken from a real server; `test_judge_mlflow` asks one where it is installed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from framegate.contract.errors import GatewayError, Misconfigured, NotConnected
from framegate.contract.quality import Quality
from framegate.endpoint.outbound import Outbound
from framegate.mapper.rules import registry as client
from framegate.mapper.rules.registry import Registry, model_name

LOCAL = Outbound(("127.0.0.1",))

NOW_NS = 1_795_000_000_000_000_000
API, ARTIFACTS = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"


@dataclass
class Shelf:
    """A registry with one model, wear: its versions' bytes, its alias live. `answers` overrules by path."""

    versions: dict[str, bytes] = field(default_factory=dict)
    live: str = "1"
    token: str = ""
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, query: dict[str, str], authorization: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if self.token and authorization != f"Bearer {self.token}":
            return 401, b"who are you?"
        found = self.answers.get(path) or self.file(path) or self.facts(path, query)
        return found or (404, orjson.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST"}))

    def file(self, path: str) -> tuple[int, bytes] | None:
        for number, data in self.versions.items():
            if path == f"{ARTIFACTS}/0/models/m%20{number}/artifacts/model.onnx":
                return 200, data
        return None

    def facts(self, path: str, query: dict[str, str]) -> tuple[int, bytes] | None:
        name, version = query.get("name", "wear"), query.get("version", "")
        newest = max(self.versions, key=int, default=None)
        if path == f"{API}/registered-models/alias" and (name, query["alias"]) == ("wear", "live"):
            return self.json({"model_version": {"name": "wear", "version": self.live, "status": "READY"}})
        if path == f"{API}/model-versions/search" and query["filter"] == "name='wear'":
            return self.json({"model_versions": [{"version": newest}] if newest else []})
        if path == f"{API}/model-versions/get-download-uri" and version in self.versions:
            return self.json({"artifact_uri": f"mlflow-artifacts:/0/models/m {version}/artifacts"})
        if path == ARTIFACTS:
            return self.json({"files": [{"path": "MLmodel"}, {"path": "model.onnx", "file_size": 91}]})
        return None

    def json(self, value: Any) -> tuple[int, bytes]:
        return 200, orjson.dumps(value)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            status, data = shelf.answer(parts.path, query, self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if status == 302:
                self.send_header("Location", data.decode())
            self.end_headers()
            with contextlib.suppress(OSError):  # the client may have enough
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    shelf.url = f"http://127.0.0.1:{server.server_port}"
    yield shelf
    server.shutdown()
    thread.join()
    server.server_close()


def registry(shelf: Shelf, token: str = "") -> Registry:
    return Registry(shelf.url, token, None, Path(), LOCAL)


@pytest.mark.parametrize(
    ("text", "version"), [("models:/wear@live", "1"), ("models:/wear/latest", "12"), ("models:/wear/7", "7")]
)
def test_every_form_of_a_name_leads_to_its_file(shelf: Shelf, text: str, version: str) -> None:
    shelf.versions = {"1": b"one", "7": b"seven", "12": b"twelve"}
    name = model_name(text)
    assert registry(shelf).version(name) == version
    assert registry(shelf).download(name, version, 100) == shelf.versions[version]


@pytest.mark.parametrize(
    "text",
    [
        "models:/wear",
        "models:/wear/Production",
        "models:/a/b/1",
        "models:/wear@",
        "models:/w'ear/1",
        "wear/1",
        "models:/wear@a b",
    ],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write models:/NAME/3"):
        model_name(text)


def test_token_is_sent_and_stands_in_no_text(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.token, shelf.versions = "s3cret-word", {"1": b"one"}
    monkeypatch.setenv("GATE_TOKEN", "s3cret-word")
    server = registry(shelf, "${env:GATE_TOKEN}")
    assert server.version(model_name("models:/wear@live")) == "1"
    monkeypatch.setenv("GATE_TOKEN", "another-s3cret")
    with pytest.raises(
        GatewayError, match=r"^E5068 registry 127.0.0.1:\d+: refused \(401\); correct `token`$"
    ) as caught:
        server.version(model_name("models:/wear@live"))
    assert "s3cret" not in repr(caught.value) + repr(server) + str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("path", "answer", "code", "part"),
    [
        ("registered-models/alias", (404, b"{}"), "E5067", "status 404"),
        ("registered-models/alias", (503, b""), "E5066", "answers 503"),
        ("registered-models/alias", (429, b""), "E5066", "answers 429"),
        ("registered-models/alias", (403, b""), "E5068", "refused"),
        ("registered-models/alias", (302, b"http://127.0.0.1:1/"), "E5067", "status 302"),
        ("registered-models/alias", (200, b"<html>"), "E5067", "no JSON object"),
        ("registered-models/alias", (200, b"[1]"), "E5067", "no JSON object"),
        ("registered-models/alias", (200, b"{}"), "E5067", "names no version"),
        ("registered-models/alias", (200, b'{"model_version": {"version": "../1"}}'), "E5067", "names no version"),
        ("registered-models/alias", (200, b"{" * (2 << 20)), "E5067", "more than 1048576 bytes"),
        ("model-versions/get-download-uri", (200, b'{"artifact_uri": "s3://bucket/m"}'), "E5067", "--serve-artifacts"),
        ("model-versions/get-download-uri", (200, b'{"artifact_uri": "file:///etc"}'), "E5067", "--serve-artifacts"),
        ("model-versions/get-download-uri", (200, b'{"artifact_uri": 5}'), "E5067", "--serve-artifacts"),
        ("model-versions/get-download-uri", (200, b'{"artifact_uri": "mlflow-artifacts:/a/../../b"}'), "E5067", "onnx"),
        ("artifacts", (200, b'{"files": []}'), "E5067", "0 .onnx files"),
        ("artifacts", (200, b'{"files": [{"path": "a.onnx"}, {"path": "b.onnx"}]}'), "E5067", "2 .onnx files"),
        ("artifacts", (200, b'{"files": [7]}'), "E5067", "0 .onnx files"),
    ],
)
def test_answer_that_is_of_no_use_is_named(shelf: Shelf, path: str, answer: Any, code: str, part: str) -> None:
    shelf.versions = {"1": b"one"}
    shelf.answers[ARTIFACTS if path == "artifacts" else f"{API}/{path}"] = answer
    name = model_name("models:/wear@live")
    with pytest.raises(GatewayError, match=f"^{code} .*{part}"):
        registry(shelf).download(name, registry(shelf).version(name), 100)


def test_file_beyond_its_bound_is_refused(shelf: Shelf) -> None:
    shelf.versions = {"1": b"x" * 200_000}
    with pytest.raises(GatewayError, match=r"^E5067 .*more than 100000 bytes"):
        registry(shelf).download(model_name("models:/wear/1"), "1", 100_000)


def test_registry_that_is_not_there_is_named() -> None:
    with pytest.raises(NotConnected, match=r"^E5066 registry 127.0.0.1:1 does not answer"):
        Registry("http://127.0.0.1:1", "", None, Path(), LOCAL).version(model_name("models:/wear@live"))


def test_registry_that_keeps_silent_is_left_after_its_deadline(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENCE_S_MAX", 0.2)
    silent = threading.Event()

    def wait(*_: Any) -> tuple[int, bytes]:
        silent.wait(20)
        return 200, b"{}"

    monkeypatch.setattr(shelf, "answer", wait)
    with pytest.raises(NotConnected, match=r"^E5066 "):
        registry(shelf).version(model_name("models:/wear@live"))
    silent.set()


@pytest.mark.parametrize(
    ("url", "token", "part"),
    [
        ("ftp://host", "", "must be https"),
        ("https://user:word@host", "", "must be https"),
        ("https://host?x=1", "", "must be https"),
        ("https://", "", "must be https"),
        ("http://mlflow.plant", "${env:T}", "could be read on the way"),
    ],
)
def test_address_that_cannot_be_used_is_refused(url: str, token: str, part: str) -> None:
    with pytest.raises(Misconfigured, match=f"^E5069 .*{part}") as caught:
        Registry(url, token, None, Path()).check()
    assert "user:word" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://mlflow.plant", "http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000"]
)
def test_token_may_travel_over_tls_and_inside_the_machine(url: str) -> None:
    Registry(url, "${env:T}", None, Path()).check()


# -- a rule whose model lies in a registry -----------------------------------------------------------------------------


def look(rule: Any) -> None:
    rule._refresher.start = lambda: None
    rule._refresher.look()
    rule.tick(NOW_NS)


def ask(stage: Any, rule: Any) -> list[tuple[Any, int]]:
    rule.take(stage.batch("a", 1.0))
    return [(value, quality) for _, value, quality in stage.rows(rule.take(stage.batch("b", 1.0)))]


def test_rule_waits_for_its_model_follows_the_alias_and_starts_without_network(
    shelf: Shelf, stage: Any, models: Any
) -> None:
    shelf.versions = {"1": models.linear([[1.0], [1.0]]), "2": models.linear([[10.0], [10.0]]), "3": b"broken"}
    row = {"model": "models:/wear@live", "registry": shelf.url, "when": "data"}
    rule = stage.make(**row)
    assert shelf.asked == []  # making a rule asks nobody
    look(rule)
    assert ask(stage, rule) == [(2.0, 0)]
    for live, value in (("2", 20.0), ("3", 20.0), ("3", 20.0), ("1", 2.0), ("2", 20.0)):
        shelf.live = live
        look(rule)
        assert ask(stage, rule) == [(value, 0)]
    refused = stage.log.events("rule_model_refused")
    assert [line["version"] for line in refused] == ["3"]
    rule.close()

    again = stage.make(**{**row, "registry": shelf.url})
    shelf.answers = {f"{API}/registered-models/alias": (503, b"")}
    look(again)
    look(again)
    assert ask(stage, again) == [(20.0, 0)]
    assert stage.log.events("rule_model_loaded")[-1]["version"] == "2"
    assert [line["reason"][:5] for line in stage.log.events("rule_model_refused")] == [
        refused[0]["reason"][:5],
        "E5066",
    ]


def test_rule_without_any_model_is_bad_and_says_why(stage: Any) -> None:
    rule = stage.make(model="models:/wear/1", registry="http://127.0.0.1:1", when="data")
    look(rule)
    rule.take(stage.batch("a", 1.0))
    assert rule._told == Quality.BAD_WAITING_FOR_INITIAL_DATA
    assert stage.log.events("rule_model_refused")[0]["reason"].startswith("E5066 registry 127.0.0.1:1 does not answer")


def test_kept_model_that_was_damaged_is_asked_for_again(shelf: Shelf, stage: Any, models: Any) -> None:
    shelf.versions = {"1": models.linear([[1.0], [1.0]])}
    row = {"model": "models:/wear/1", "registry": shelf.url, "when": "data"}
    look(stage.make(**row))
    (kept,) = (stage.folder / "data" / "models").glob("*.onnx")
    kept.write_bytes(kept.read_bytes()[:-1] + b"\xff")
    rule = stage.make(**row)
    assert rule._model is None
    look(rule)
    assert ask(stage, rule) == [(2.0, 0)]


def test_fixed_version_in_use_is_never_asked_for_again(shelf: Shelf, stage: Any, models: Any) -> None:
    shelf.versions = {"1": models.linear([[1.0], [1.0]])}
    rule = stage.make(model="models:/wear/1", registry=shelf.url)
    look(rule)
    asked = len(shelf.asked)
    look(rule)
    assert len(shelf.asked) == asked
