"""A real MLflow server judges the registry's client. Skipped without `mlflow` on the PATH."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from framegate.contract.errors import GatewayError
from framegate.endpoint.outbound import Outbound
from framegate.mapper.rules.registry import Registry, model_name
from framegate.testing.ports import free_port

MLFLOW = shutil.which("mlflow")
START_S_MAX = 300.0
"""It imports for minutes on a busy machine."""
pytestmark = pytest.mark.skipif(MLFLOW is None, reason="mlflow is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any) -> Iterator[str]:
    assert MLFLOW is not None
    folder: Path = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [MLFLOW, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination", str(folder / "artifacts")]
    log_file = folder / "server.log"
    with (
        log_file.open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + START_S_MAX
        try:
            while not answers(url):
                assert process.poll() is None, log_file.read_text()[-2000:]
                assert time.monotonic() < until, "the server did not start in time"
            yield url
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # its workers too


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=1.0).status_code == 200
    except httpx2.HTTPError:
        time.sleep(0.2)  # nothing listens yet
        return False


def put_version(url: str, data: bytes) -> str:
    """Upload a file as the model of a new run, and register it as the next version of wear."""
    api = f"{url}/api/2.0/mlflow"
    run = post(f"{api}/runs/create", experiment_id="0")["run"]["info"]
    folder = f"{run['artifact_uri']}/model"
    path = folder.removeprefix("mlflow-artifacts:/")
    httpx2.put(f"{url}/api/2.0/mlflow-artifacts/artifacts/{path}/model.onnx", content=data).raise_for_status()
    made = post(f"{api}/model-versions/create", name="wear", source=folder, run_id=run["run_id"])
    version: str = made["model_version"]["version"]
    return version


def post(url: str, **body: str) -> Any:
    answer = httpx2.post(url, json=body, timeout=60.0)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.timeout(400)
def test_real_server_gives_versions_aliases_and_files(server: str, models: Any) -> None:
    registry = Registry(server, "", None, Path(), Outbound(("127.0.0.1", "localhost")))
    with pytest.raises(GatewayError, match=r"^E5067 "):
        registry.version(model_name("models:/wear@live"))
    with pytest.raises(GatewayError, match=r"^E5067 .*names no version of wear"):
        registry.version(model_name("models:/wear/latest"))
    api = f"{server}/api/2.0/mlflow/registered-models"
    post(f"{api}/create", name="wear")
    files = [models.linear([[factor], [factor]]) for factor in (1.0, 10.0)]
    assert [put_version(server, data) for data in files] == ["1", "2"]
    post(f"{api}/alias", name="wear", alias="live", version="1")
    for text, version in (("models:/wear@live", "1"), ("models:/wear/latest", "2"), ("models:/wear/1", "1")):
        assert registry.version(model_name(text)) == version
        assert registry.download(model_name(text), version, 1 << 20) == files[int(version) - 1]
    with pytest.raises(GatewayError, match=r"^E5067 "):
        registry.download(model_name("models:/wear/9"), "9", 1 << 20)
