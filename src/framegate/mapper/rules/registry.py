"""A model registry that speaks MLflow's REST API: which version a name means now, and its ONNX file.

Blocking: it runs in the thread of `model_source`. Every request has a deadline, every answer a bound; redirects are
not followed, so a token goes nowhere else. The token is resolved for each request and stands in no text.

Source: MLflow 3 REST API, registered-models, model-versions and mlflow-artifacts (proxied artifact access).
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import orjson

from framegate.contract.errors import GatewayError, Misconfigured, NotConnected
from framegate.endpoint.outbound import OUTSIDE_ONLY, Outbound
from framegate.endpoint.secret import resolve

CONNECT_S_MAX = 5.0
SILENCE_S_MAX = 10.0
DOWNLOAD_S_MAX = 300.0
ANSWER_BYTES_MAX = 1 << 20
API = "/api/2.0/mlflow"
_PORTS = {"http": 80, "https": 443}
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_MODEL = re.compile(r"models:/(?P<name>[^/@:'\"]+)(?:/(?P<version>[0-9]{1,9}|latest)|@(?P<alias>[A-Za-z0-9_.-]+))")


@dataclass(frozen=True, slots=True)
class ModelName:
    """models:/name/3, models:/name@alias or models:/name/latest; exactly one of version and alias is set."""

    name: str
    version: str
    alias: str

    @property
    def is_fixed(self) -> bool:
        """Versions of a registry never change."""
        return self.version.isdigit()


def model_name(text: str) -> ModelName:
    """Raises ValueError with the allowed forms."""
    match = _MODEL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:128]!r} is no model; write models:/NAME/3, models:/NAME@ALIAS or models:/NAME/latest")
    return ModelName(match["name"], match["version"] or "", match["alias"] or "")


@dataclass(frozen=True, slots=True)
class Registry:
    """One server.

    url     https://host[:port][/prefix]; http only without token, or to this machine
    token   reference to a bearer token, or ""
    ca      PEM file with what the server is trusted by; None: the system's
    base    folder that relative files of references start from
    outbound  which hosts may be called
    """

    url: str
    token: str = field(repr=False)
    ca: Path | None
    base: Path
    outbound: Outbound = OUTSIDE_ONLY

    def check(self) -> None:
        """Raises Misconfigured E5069: an address that cannot be used, or a token that would travel in clear."""
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
            text = "registry must be https://host[:port] without user, password and query; the token has its own key"
            raise Misconfigured(text, code="E5069")
        if self.token and parts.scheme == "http" and not _is_this_machine(parts.hostname):
            text = f"registry {parts.hostname}: a token over http could be read on the way; use https"
            raise Misconfigured(text, code="E5069")

    def version(self, model: ModelName) -> str:
        """The version that the name means now.

        raises NotConnected E5066 - no answer; GatewayError E5067 - no such model; E5068 - token or certificate refused;
               Misconfigured E5071 - the address leads where the gateway must not call
        """
        with self._client() as client:
            if model.alias:
                query = {"name": model.name, "alias": model.alias}
                answer = self._json(client, f"{API}/registered-models/alias", query)
                found = [answer.get("model_version")]
            elif model.is_fixed:
                return model.version
            else:
                query = {"filter": f"name='{model.name}'", "order_by": "version_number DESC", "max_results": "1"}
                answer = self._json(client, f"{API}/model-versions/search", query)
                found = list(answer.get("model_versions") or [None])
        version = found[0].get("version") if isinstance(found[0], dict) else None
        if not isinstance(version, str | int) or not str(version).isdigit():
            raise self._useless(f"names no version of {model.name}")
        return str(version)

    def download(self, model: ModelName, version: str, bytes_max: int) -> bytes:
        """The ONNX file of a version; raises as `version` does."""
        with self._client() as client:
            query = {"name": model.name, "version": version}
            uri = self._json(client, f"{API}/model-versions/get-download-uri", query).get("artifact_uri")
            if not isinstance(uri, str) or urlsplit(uri).scheme != "mlflow-artifacts":
                raise self._useless(f"keeps version {version} at {str(uri)[:128]!r}; start it with --serve-artifacts")
            folder = urlsplit(uri).path.strip("/")
            listed = self._json(client, ARTIFACTS, {"path": folder}).get("files")
            paths = [str(one.get("path", "")) for one in listed or () if isinstance(one, dict)]
            names = [path.rpartition("/")[2] for path in paths if path.endswith(".onnx")]
            if len(names) != 1 or ".." in folder.split("/"):
                raise self._useless(f"has {len(names)} .onnx files in version {version}; one is wanted")
            return self._get(client, f"{ARTIFACTS}/{quote(folder)}/{quote(names[0])}", {}, bytes_max, DOWNLOAD_S_MAX)

    def _client(self) -> httpx2.Client:
        try:
            trust = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            text = f"ca {self.ca} cannot be used ({error.strerror or 'no PEM certificate'}); name a PEM file"
            raise Misconfigured(text, code="E5069") from error
        timeout = httpx2.Timeout(SILENCE_S_MAX, connect=CONNECT_S_MAX)
        parts = urlsplit(self.url.rstrip("/"))
        address = self.outbound.address_of(parts.hostname or "", parts.port or _PORTS[parts.scheme])
        # Connected by the address that was looked at; named, and trusted, by the host.
        inner = f"[{address}]" if ":" in address else address
        url = parts._replace(netloc=f"{inner}:{parts.port}" if parts.port else inner).geturl()
        headers = {"Host": parts.netloc}
        return httpx2.Client(base_url=url, headers=headers, verify=trust, timeout=timeout, trust_env=False)

    def _json(self, client: httpx2.Client, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        data = self._get(client, path, query, ANSWER_BYTES_MAX, SILENCE_S_MAX)
        try:
            answer = orjson.loads(data)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise self._useless(f"answers {path} with something that is no JSON object")
        return answer

    def _get(
        self, client: httpx2.Client, path: str, query: Mapping[str, str], bytes_max: int, seconds_max: float
    ) -> bytes:
        headers = {"Authorization": f"Bearer {resolve(self.token, self.base)}"} if self.token else {}
        until = time.monotonic() + seconds_max
        parts: list[bytes] = []
        try:
            name = {"sni_hostname": urlsplit(self.url).hostname}
            with client.stream("GET", path, params=dict(query), headers=headers, extensions=name) as answer:
                self._check_status(answer.status_code, path)
                for part in answer.iter_bytes():
                    parts.append(part)
                    if sum(map(len, parts)) > bytes_max:
                        raise self._useless(f"answers {path} with more than {bytes_max} bytes")
                    if time.monotonic() > until:
                        raise NotConnected(f"{self._host} did not finish {path} in {seconds_max:.0f} s", code="E5066")
        except httpx2.HTTPError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                text = f"registry {self._host}: its certificate is not accepted; name its issuer with `ca`"
                raise GatewayError(text, code="E5068") from error
            reason = str(error) or type(error).__name__
            raise NotConnected(f"registry {self._host} does not answer: {reason[:200]}", code="E5066") from error
        return b"".join(parts)

    def _check_status(self, status: int, path: str) -> None:
        if status in {401, 403}:
            raise GatewayError(f"registry {self._host}: refused ({status}); correct `token`", code="E5068")
        if status >= 500 or status == 429:
            raise NotConnected(f"registry {self._host}: {path} answers {status}", code="E5066")
        if status != 200:
            raise self._useless(f"answers {path} with status {status}; is the name of the model right?")

    def _useless(self, what: str) -> GatewayError:
        return GatewayError(f"registry {self._host} {what}", code="E5067")

    @property
    def _host(self) -> str:
        return urlsplit(self.url).netloc


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
