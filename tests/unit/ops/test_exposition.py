"""Metrics and probes over HTTP: judged by prometheus_client's parser, and beset by hostile clients."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from statistics import median

import pytest
from prometheus_client.parser import text_string_to_metric_families

from framegate.contract.errors import Misconfigured
from framegate.observe.metrics import Metrics
from framegate.ops import http
from framegate.ops.exposition import Exposition, serve
from framegate.ops.port_holder import holder_of


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.gauge("edge_bus_lag", connector="cloud").value = 12
    metrics.gauge("edge_bus_lag", connector='odd "name"\\\n').read = lambda: 0.5
    metrics.counter("edge_endpoint_received_bytes_total", endpoint="plc1").value = 2**60
    latency = metrics.histogram("edge_frame_latency_ms", connector="cloud")
    latency.observe(3.0, 10)
    latency.observe(700_000.0)
    return metrics


@pytest.fixture
async def exposition(metrics: Metrics) -> AsyncIterator[Exposition]:
    exposition = await serve(metrics, "127.0.0.1", 0, lambda: "")
    yield exposition
    await exposition.close()


async def fetch(port: int, path: str, *, method: str = "GET", headers: str = "") -> tuple[int, str, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode())
        async with asyncio.timeout(5):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), head.decode(), body
    finally:
        writer.close()


async def test_metrics_page_read_by_prometheus_parser_gives_the_numbers(exposition: Exposition) -> None:
    status, head, body = await fetch(exposition.port, "/metrics")
    assert status == 200
    assert "Content-Type: text/plain; version=0.0.4" in head
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    lags = {sample.labels["connector"]: sample.value for sample in families["edge_bus_lag"].samples}
    assert lags == {"cloud": 12.0, 'odd "name"\\\n': 0.5}
    assert families["edge_endpoint_received_bytes"].samples[0].value == float(2**60)
    buckets = {
        sample.labels.get("le", sample.name): sample.value for sample in families["edge_frame_latency_ms"].samples
    }
    assert buckets["2.0"] == 0
    assert buckets["5.0"] == 10
    assert buckets["600000.0"] == 10
    assert buckets["+Inf"] == buckets["edge_frame_latency_ms_count"] == 11
    assert buckets["edge_frame_latency_ms_sum"] == 700_030.0
    assert families["edge_build_info"].samples[0].labels["version"] == "0.1.0"
    for name in (
        "process_cpu_seconds",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ):
        assert families[name].samples[0].value > 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian package prometheus) is not installed")
async def test_metrics_page_passes_promtool(exposition: Exposition) -> None:
    _, _, body = await fetch(exposition.port, "/metrics")
    command = ["promtool", "check", "metrics"]
    verdict = await asyncio.to_thread(subprocess.run, command, input=body, capture_output=True, check=False)
    # Names with _ms are fixed by the product's own first specification; everything else promtool says counts.
    said = [line for line in verdict.stderr.decode().splitlines() if "abbreviated units" not in line]
    assert said == []
    assert verdict.returncode in {0, 3}


async def test_probes_follow_the_gateway(metrics: Metrics) -> None:
    problem = ["durable log: no space left on device; free some"]
    exposition = await serve(metrics, "127.0.0.1", 0, lambda: problem[0])
    assert await fetch(exposition.port, "/livez") == (200, *(await fetch(exposition.port, "/livez"))[1:])
    status, _, body = await fetch(exposition.port, "/readyz")
    assert (status, body) == (503, b"durable log: no space left on device; free some\n")
    problem[0] = ""
    assert (await fetch(exposition.port, "/readyz?verbose"))[0] == 200
    await exposition.close()


async def test_connection_kept_open_serves_again(exposition: Exposition) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", exposition.port)
    for _ in range(3):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"keep-alive" in head
        assert await reader.readexactly(6) == b"alive\n"
    writer.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 505),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00 not tls\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000, 431),
    ],
)
async def test_request_out_of_bounds_is_refused(exposition: Exposition, request_bytes: bytes, status: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", exposition.port)
    writer.write(request_bytes)
    async with asyncio.timeout(5):
        head = await reader.readline()
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    writer.close()


async def test_slow_header_is_cut_at_its_deadline(exposition: Exposition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEADER_WAIT_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", exposition.port)
    writer.write(b"GET / HTTP/1.1\r\nX: ")
    async with asyncio.timeout(3):
        assert await _drained(reader) == b""
    writer.close()


async def test_reader_that_does_not_read_is_cut(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REPLY_WAIT_S", 0.2)

    async def large(_: str) -> http.Response:
        return http.Response(200, b"x" * (16 << 20))

    server = http.HttpServer(large)
    await server.start("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        await _until(lambda: server.connections == 1)
        await _until(lambda: server.connections == 0)
    await server.close()


async def test_crowd_of_silent_sockets_does_not_keep_a_scraper_out(exposition: Exposition) -> None:
    crowd, took_s = [], []
    for number in range(300):
        _, writer = await asyncio.open_connection("127.0.0.1", exposition.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        crowd.append(writer)
        if number % 20 == 0:
            began = time.perf_counter()
            assert (await fetch(exposition.port, "/livez"))[0] == 200
            took_s.append(time.perf_counter() - began)
    assert exposition._server.connections <= http.CONNECTIONS_PER_PEER_MAX
    assert median(took_s) < 1.0, "most of them came when the crowd had every place"
    for writer in crowd:
        writer.close()


async def test_taken_port_names_its_holder_and_the_setting(metrics: Metrics) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured) as caught:
            await serve(metrics, "127.0.0.1", port, lambda: "")
    assert f"E4017 metrics address 127.0.0.1:{port}: the port is taken by " in str(caught.value)
    assert "(pid " in str(caught.value)
    assert "set `metrics` in the gateway section of drivers.yml" in str(caught.value)


async def test_foreign_address_is_refused_in_words(metrics: Metrics) -> None:
    with pytest.raises(Misconfigured, match=r"E4018 metrics address 203\.0\.113\.7:9100"):
        await serve(metrics, "203.0.113.7", 9100, lambda: "")


def test_holder_of_a_free_port_is_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert "(pid " in holder_of(port)
    assert holder_of(port) == ""


async def _drained(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - polls a plain fact
            await asyncio.sleep(0.005)
