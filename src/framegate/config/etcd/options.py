"""config-centre.yml: which etcd holds the tables of this gateway, and how to get in.

    endpoints: ["https://etcd1.example:2379", "https://etcd2.example:2379"]
    site: plant1
    gateway: line4
    tls: {ca: certs/etcd-ca.pem}
    credentials: {username: line4, password: "${cred:etcd}"}

It lies in the home, beside `config/` and not in it: a file that the centre delivers cannot say where the centre is.
Whether it exists decides whether a gateway follows a centre. Schema: contract/tables/config-centre.schema.json.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

from framegate.config.explain import Finding, findings_of
from framegate.config.problems import Problems
from framegate.config.schema import Check
from framegate.config.yaml import Flaw, load_yaml
from framegate.contract.errors import Misconfigured
from framegate.contract.law import law_text
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.endpoint import CredentialsReference, TlsOptions, TlsVersion, tls_file_problems
from framegate.endpoint.secret import resolve

NAME = "config-centre"
FILE_NAME = f"{NAME}.yml"
FILE_BYTES_MAX = 64 * 1024
_INSTANCE_CHARACTERS_MAX = 64


@dataclass(frozen=True, slots=True)
class CentreOptions:
    """What config-centre.yml says.

    endpoints  http(s)://host:port of each member, without a trailing slash
    base       folder that relative files and references start from
    """

    endpoints: tuple[str, ...]
    site: str
    gateway: str
    instance: str
    base: Path
    tls: TlsOptions = field(default_factory=TlsOptions)
    credentials: CredentialsReference | None = None

    @property
    def root(self) -> str:
        """First part of every key, `edge/SITE/GATEWAY/`."""
        return f"edge/{self.site}/{self.gateway}/"


def read_options(file: Path) -> CentreOptions:
    """The options of one file.

    raises  Misconfigured E1181 - there is no such file; E1170 - with every problem, placed at line and column
    """
    data = _read(file)
    problems = Problems()
    document = load_yaml(data)
    for flaw in document.flaws:
        problems.add_flaw(NAME, flaw)
    raw: Mapping[str, Any] = document.value if isinstance(document.value, dict) else {}
    if document.is_whole:
        if not isinstance(document.value, dict):
            problems.add_flaw(NAME, Flaw(1, 1, "E1108", "the file is no mapping; it begins with `endpoints: [...]`"))
        else:
            for finding in map(_discreet, findings_of(_check(), raw), repeat(raw)):
                problems.add(NAME, finding.path, finding.code, finding.text, at_key=finding.code == "E1106")
    if not problems:
        options = _options(raw, file.parent)
        _check_files(options, problems)
    if problems:
        placed = problems.placed({NAME: data})
        noun = "problem" if len(placed) == 1 else "problems"
        raise Misconfigured(f"{len(placed):,} {noun} in {file}; see each line", code="E1170", problems=placed)
    return options


@cache
def _check() -> Check:
    schema = json.loads(law_text(f"tables/{NAME}.schema.json"))
    return Check({key: value for key, value in schema.items() if key != "$schema"})


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        text = f"no config centre is named: {file} does not exist; write endpoints, site and gateway into it"
        raise Misconfigured(text, code="E1181") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Misconfigured(
            f"{file} cannot be read ({reason}); correct the path or its rights", code="E1170"
        ) from error
    if len(data) > FILE_BYTES_MAX:
        text = f"{file} is larger than {FILE_BYTES_MAX >> 10} KiB; it holds a few lines only"
        raise Misconfigured(text, code="E1170")
    return data


def _discreet(finding: Finding, raw: Mapping[str, Any]) -> Finding:
    """The finding without the value at fault, where that may hold a secret."""
    path = finding.path
    if path[:1] == ("endpoints",) and "@" in str(raw["endpoints"]):
        text = "no user name or password stands in an address; write them under `credentials:`"
        return Finding(path, "E2005", text)
    is_secret = path[:1] == ("credentials",) or path[-1:] == ("key_password",)
    if is_secret and finding.code not in {"E1106", "E1107"}:
        return Finding(path, finding.code, 'it must be text, such as "${env:ETCD_PASSWORD}"')
    return finding


def _options(raw: Mapping[str, Any], base: Path) -> CentreOptions:
    tls = raw.get("tls", {})
    login = raw.get("credentials")
    return CentreOptions(
        endpoints=tuple(url.rstrip("/") for url in raw["endpoints"]),
        site=raw["site"],
        gateway=raw["gateway"],
        instance=raw.get("instance") or _host_name(),
        base=base,
        tls=TlsOptions(
            ca=base / tls["ca"] if "ca" in tls else None,
            cert=base / tls["cert"] if "cert" in tls else None,
            key=base / tls["key"] if "key" in tls else None,
            key_password=tls.get("key_password"),
            minimum=TlsVersion(str(tls.get("min", "1.2"))),
            server_name=tls.get("server_name"),
        ),
        credentials=None if login is None else CredentialsReference(login["username"], login["password"]),
    )


def _check_files(options: CentreOptions, problems: Problems) -> None:
    """What a schema cannot see: ports, certificate files, secrets that lead nowhere."""
    for number, url in enumerate(options.endpoints):
        port = re.search(r":(\d+)$", url)
        if port and not 1 <= int(port[1]) <= 65_535:
            problems.add(NAME, ("endpoints", number), "E1109", f"port {port[1]} is beyond 65535; etcd listens on 2379")
    for found in tls_file_problems(options.tls, options.base, SystemClock().now_ns()):
        problems.add(NAME, ("tls", found.key), found.code, found.text)
    if options.tls.key and not options.tls.cert:
        problems.add(NAME, ("tls", "key"), "E2009", "key stands alone; name the certificate it belongs to as cert")
    if options.credentials is not None:
        for key in ("username", "password"):
            try:
                resolve(getattr(options.credentials, key), options.base)
            except Misconfigured as error:
                problems.add(NAME, ("credentials", key), error.stable_code, error.text)


def _host_name() -> str:
    """The host's name, made fit for a key."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:_INSTANCE_CHARACTERS_MAX] or "gateway"
