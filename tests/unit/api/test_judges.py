"""The API judged by strangers: is the document one, does it hold, does a generated client work.

schemathesis attacks every operation with requests made from the document, as nobody and in each role (R-17): no 5xx,
answers as the document says, nothing but what is public without credentials.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from framegate.access.roles import ROLES
from framegate.api import app
from framegate.api.openapi import document, document_bytes
from framegate.api.operation import PUBLIC
from framegate.api.operations import OPERATIONS
from framegate.api.rate import Rates

EXCLUDED = ("positive_data_acceptance", "object_level_authorization")
"""What fits the form may still be no tag of this plant; and every role asks for the same objects."""
EXAMPLES, EXAMPLES_LONG = 3, int(os.environ.get("EDGE_TEST_EXAMPLES", "15"))
"""For each operation; 300 take ten minutes for each role, where nothing else runs."""
ATTACK_S_MAX = max(240, 6 * EXAMPLES_LONG)


def test_document_is_openapi_3_1() -> None:
    made = document()
    validate(made)
    assert made["openapi"] == "3.1.0"
    described = [one for methods in made["paths"].values() for one in methods.values()]
    assert len(described) == len(OPERATIONS)
    assert all(("security" in one) == (one["operationId"].replace("_", ".") in PUBLIC) for one in described)


async def attack(stage: Any, role: str, examples: int, folder: Path) -> str:
    """Run schemathesis against a server as nobody or in a role; returns what it found, "" for nothing."""
    server = await stage.serve()
    (folder / "schemathesis.toml").write_text("")
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml", "run",
        f"http://{server.address}/api/v1/openapi.json", "--url", f"http://{server.address}", "--checks", "all",
        "--exclude-checks", ",".join(EXCLUDED), "--max-examples", str(examples), "--seed", "4711", "--no-color",
        "--phases", "examples,coverage,fuzzing", "--request-timeout", "10", "--generation-database", "none",
        "--suppress-health-check", "all", "--continue-on-failure",
    ]  # fmt: skip
    if role:
        command += ["--header", f"Authorization: {getattr(stage, role)}"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=ATTACK_S_MAX, check=False)

    try:
        done = await asyncio.to_thread(run)
    finally:
        await server.close()
    return "" if done.returncode == 0 else done.stdout + done.stderr


async def judged(stage: Any, role: str, examples: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "Rates", lambda: Rates(1e9, 1e9))  # what is refused for its number is not judged
    found = await attack(stage, role, examples, folder)
    assert found == ""
    assert stage.log.events("api_failed") == []
    counts = {
        (dict(labels)["operation"], dict(labels)["status"]): child.value
        for spec, rows in stage.metrics.collect()
        if spec.name == "edge_api_requests_total"
        for labels, child in rows
    }
    assert {operation for operation, _ in counts} == {one.id for one in OPERATIONS}
    succeeded = {operation for operation, status in counts if status == "2xx"}
    may = {one.id for one in OPERATIONS if one.permission is None or one.permission in ROLES.get(role, ())}
    assert succeeded <= may
    assert {"livez", "readyz", "openapi"} <= succeeded
    assert ("tags.write" in succeeded) == ("tags:write" in ROLES.get(role, ()))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("role", ["", *ROLES])
async def test_attacked_by_its_own_document_it_holds(
    stage: Any, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await judged(stage, role, EXAMPLES, tmp_path, monkeypatch)


@pytest.mark.campaign
@pytest.mark.timeout(60 + ATTACK_S_MAX)
@pytest.mark.parametrize("role", ["", *ROLES])
async def test_attacked_for_long_it_holds(
    stage: Any, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await judged(stage, role, EXAMPLES_LONG, tmp_path, monkeypatch)


CLIENT = """
import json, sys
from framegate_client import AuthenticatedClient
from framegate_client.api.tags import tags_write, tags_read
from framegate_client.models import Write

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
done = tags_write.sync_detailed("line/4 \u00e9", client=client, body=Write(value=7.5, verify=True))
read = tags_read.sync("t1", client=client)
print(json.dumps([done.status_code, done.parsed.outcome, done.parsed.tag, read.value]))
"""


@pytest.mark.timeout(180)
async def test_generated_client_writes_a_tag(stage: Any, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_bytes(document_bytes())
    (tmp_path / "settings.yml").write_text("package_name_override: framegate_client\npost_hooks: []\n")
    generate = [
        str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--path", "openapi.json",
        "--config", "settings.yml", "--meta", "none", "--output-path", "framegate_client", "--fail-on-warning",
    ]  # fmt: skip
    (tmp_path / "client.py").write_text(CLIENT)

    async def run(*command: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            lambda: subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        )

    made = await run(*generate)
    assert made.returncode == 0, made.stdout + made.stderr
    server = await stage.serve()
    try:
        token = stage.operator.removeprefix("Bearer ")
        done = await run(sys.executable, "client.py", f"http://{server.address}", token)
    finally:
        await server.close()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [200, "CONFIRMED", "line/4 \u00e9", 1.5]
    assert stage.desk.sent[0].value == 7.5
