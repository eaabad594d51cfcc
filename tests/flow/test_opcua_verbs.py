"""`edge browse` and `edge opcua`: what is shown, and what is written."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from framegate.cli.main import main
from framegate_plugins.opcua.pki import Pki
from framegate_plugins.opcua.simulator import NAMESPACE, start

START_S = 100.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A simulator in a thread of its own, because the verb has a loop for itself."""
    ready, stop, urls = threading.Event(), threading.Event(), list[str]()

    async def serve() -> None:
        simulator = await start({"tags": 3})
        urls.append(simulator.url)
        ready.set()
        await asyncio.to_thread(stop.wait)
        await simulator.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(START_S)
    yield urls[0]
    stop.set()
    thread.join(20)


@pytest.fixture
def home(tmp_path: Path, url: str) -> Path:
    config = tmp_path / "config"
    config.mkdir()
    (config / "endpoints.yml").write_text(f'endpoints:\n  e: {{url: "{url}"}}\n')
    (config / "drivers.yml").write_text(
        "drivers:\n  plc: {plugin: opcua, endpoint: e, options: {security: none}, scan: {default: 1s}}\n"
    )
    (config / "variables.yml").write_text(
        'variables:\n  - {tag: plc.first, source: plc, address: "i=2258", type: int64}\n'
    )
    return tmp_path


def test_browse_shows_and_writes_tags(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["browse", "plc", "--filter", "*/t1", "-o", "csv", "--home", str(home)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "tag,address,type,access,unit,path",
        f"plc.tags_0.t1,nsu={NAMESPACE};s=t1,float64,RW,,tags 0/t1",
    ]
    assert main(["browse", "plc", "--to", "variables.yml", "--home", str(home)]) == 0
    text = (home / "config" / "variables.yml").read_text()
    assert all(name in text for name in ("plc.first", "plc.tags_0.t0", "plc.tags_0.t2", "plc.array", "plc.text"))
    assert main(["check", "--home", str(home)]) == 0
    sheet = home / "tags.csv"
    assert main(["browse", "plc", "--to", str(sheet), "--home", str(home)]) == 0
    assert sheet.read_text().startswith("tag,source,address,type,access,unit\n")
    assert main(["browse", "plc", "--to", str(sheet), "--home", str(home)]) != 0


def test_browse_of_no_such_device_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["browse", "nobody", "--home", str(home)]) != 0
    assert "E2755" in capsys.readouterr().err


def test_trust_is_listed_given_and_taken(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = Pki(home / "other").own("urn:other", "other")
    folder = home / "private" / "opcua"
    Pki(folder / "pki").reject(own.certificate)

    def listed() -> list[dict[str, object]]:
        assert main(["opcua", "trust", "ls", "-o", "json", "--home", str(home)]) == 0
        found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
        return found

    (row,) = listed()
    assert (row["state"], row["uri"]) == ("rejected", "urn:other")
    assert main(["opcua", "trust", "add", str(row["thumbprint"])[:8], "--home", str(home)]) == 0
    capsys.readouterr()
    assert [each["state"] for each in listed()] == ["trusted"]
    assert main(["opcua", "trust", "rm", str(row["thumbprint"]), "--home", str(home)]) == 0
    capsys.readouterr()
    assert listed() == []
    assert main(["opcua", "trust", "add", str(row["thumbprint"]), "--home", str(home)]) != 0
    assert "E2751" in capsys.readouterr().err
    file = home / "cert.der"
    file.write_bytes(own.certificate)
    assert main(["opcua", "trust", "add", str(file), "--home", str(home)]) == 0
    capsys.readouterr()
    assert [each["state"] for each in listed()] == ["trusted"]


@pytest.mark.parametrize("words", [[], ["trust"], ["trust", "add"], ["turst", "ls"], ["trust", "add", "abc"]])
def test_other_words_are_refused(home: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["opcua", *words, "--home", str(home)]) != 0
    assert "E275" in capsys.readouterr().err
