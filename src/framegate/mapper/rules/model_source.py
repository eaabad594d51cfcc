"""Where a model comes from, and how a newer one takes its place.

A file of HOME/rules, or a version in a registry, kept in HOME/data/models so that a start needs no network. A thread
looks for a newer one every `refresh`, loads it and runs it beside the one in use; the rule takes it over at its next
tick. One that is broken, slow or does not fit is refused once and named; the one in use stays.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import orjson

from framegate.contract.errors import GatewayError, Misconfigured
from framegate.endpoint.durable import replace_durably
from framegate.mapper.rules.onnx_model import MODEL_BYTES_MAX, Model
from framegate.mapper.rules.registry import ModelName, Registry


class Candidate(NamedTuple):
    """Bytes of a model; `identity` tells versions apart, `version` is the registry's, "" for a file."""

    data: bytes
    identity: str
    version: str


class Origin(Protocol):
    """Where the bytes come from."""

    def kept(self) -> Candidate | None:
        """What can be had without network."""

    def newer(self, identity: str) -> Candidate | None:
        """What there is now, unless it is the one named. Raises GatewayError; may block."""

    def keep(self, candidate: Candidate) -> None:
        """A candidate has proven itself. Raises OSError."""


class ModelFile:
    """A file of HOME/rules."""

    def __init__(self, rule: str, file: str, folder: Path) -> None:
        self._rule, self._file, self._folder = rule, file, folder

    def kept(self) -> Candidate:
        """Raises Misconfigured E5060."""
        where = f"rule {self._rule}: {self._folder / self._file}"
        try:
            path = (self._folder / self._file).resolve(strict=True)
            if not path.is_relative_to(self._folder.resolve()) or not path.is_file():
                raise Misconfigured(f"{where} is no file inside {self._folder}; put the model there", code="E5060")
            with path.open("rb") as file:
                data = file.read(MODEL_BYTES_MAX + 1)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            text = f"{where} cannot be read ({reason}); put the model there, or correct `model`"
            raise Misconfigured(text, code="E5060") from error
        if len(data) > MODEL_BYTES_MAX:
            raise Misconfigured(f"{where} is larger than {MODEL_BYTES_MAX >> 20} MiB", code="E5060")
        return Candidate(data, hashlib.sha256(data).hexdigest(), "")

    def newer(self, identity: str) -> Candidate | None:
        found = self.kept()
        return None if found.identity == identity else found

    def keep(self, candidate: Candidate) -> None:
        """It lies where it is."""


class ModelOfRegistry:
    """A version in a registry; the one in use lies beside its facts as `<digest of the name>.onnx` and `.json`."""

    def __init__(self, registry: Registry, model: ModelName, folder: Path) -> None:
        self._registry, self._model, self._folder = registry, model, folder
        name = f"{registry.url}\n{model.name}\n{model.version}\n{model.alias}"
        self._path = folder / hashlib.sha256(name.encode()).hexdigest()[:32]

    def kept(self) -> Candidate | None:
        """The kept file; None where it is absent or damaged: it is asked for again."""
        try:
            facts = orjson.loads(self._path.with_suffix(".json").read_bytes())
            with self._path.with_suffix(".onnx").open("rb") as file:
                data = file.read(MODEL_BYTES_MAX + 1)
            version, sha256 = str(facts["version"]), facts["sha256"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return Candidate(data, version, version) if hashlib.sha256(data).hexdigest() == sha256 else None

    def newer(self, identity: str) -> Candidate | None:
        version = self._registry.version(self._model)
        if version == identity:
            return None
        return Candidate(self._registry.download(self._model, version, MODEL_BYTES_MAX), version, version)

    def keep(self, candidate: Candidate) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        facts = {"version": candidate.version, "sha256": hashlib.sha256(candidate.data).hexdigest()}
        for suffix, data in ((".onnx", candidate.data), (".json", orjson.dumps(facts))):
            replace_durably(self._path.with_suffix(suffix), data)


class Arrival(NamedTuple):
    """What a look has brought: a model that may take over, or why there is none. `version` as in Candidate."""

    model: Model | None
    version: str
    reason: str


class Refresher:
    """Looks for a newer model, again and again, in a thread of its own; `take` is called on the loop."""

    def __init__(self, rule: str, origin: Origin, load: Callable[[bytes], Model], period_s: float) -> None:
        self._rule, self._origin, self._load, self._period_s = rule, origin, load, period_s
        self._arrival: Arrival | None = None
        self._seen = ""
        self._reason = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def first(self) -> tuple[Model, Candidate] | None:
        """The model that can be had now, without network.

        raises Misconfigured - there is one, and it cannot be used
        """
        found = self._origin.kept()
        if found is None:
            return None
        self._seen = found.identity
        return self._load(found.data), found

    def start(self) -> None:
        """Begin to look; once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"edge-model-{self._rule}"[:64], daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread after its present look; it may be waiting for a registry, so nobody waits for it."""
        self._stop.set()

    def take(self) -> Arrival | None:
        """What has arrived since the last call."""
        arrival, self._arrival = self._arrival, None
        return arrival

    def look(self) -> None:
        """Look once. What fails in the same way again is not told again; what was refused is not loaded again."""
        version = ""
        try:
            found = self._origin.newer(self._seen)
            if found is not None:
                version = found.version
                self._seen = found.identity
                model = self._load(found.data)
                self._origin.keep(found)
                self._arrival = Arrival(model, version, "")
            self._reason = ""
        except (GatewayError, OSError) as error:
            if str(error) != self._reason:
                self._reason = str(error)
                self._arrival = Arrival(None, version, self._reason)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self._period_s)
