"""The demo's verdict: what was asked, what arrived, and whether the gateway kept its word."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from framegate.cli.demo.witness import Witness
from framegate.observe.face import GatewayHealth


@dataclass(slots=True)
class Verdict:
    """One JSON line for people and for CI. Times in seconds unless named otherwise."""

    broker: str
    fault: str
    asked_s: float
    played_s: float = 0.0
    first_value_s: float = 0.0
    outage_s: float = 0.0
    recovered_s: float = 0.0
    stop_s: float = 0.0
    position: int = 0
    frames: int = 0
    messages: int = 0
    lost: int = 0
    repeated: int = 0
    out_of_order: int = 0
    bad_frames: int = 0
    tags: int = 0
    latency_p50_ms: float = 0.0
    latency_p99_ms: float = 0.0

    def take(self, witness: Witness, position: int, health: GatewayHealth | None) -> None:
        """Close the account at a position that the gateway called durable."""
        account = witness.account(position)
        self.position, self.frames, self.messages = position, witness.frames, witness.messages
        self.lost, self.repeated = account["lost"], account["repeated"]
        self.out_of_order, self.bad_frames, self.tags = witness.out_of_order, witness.bad, len(witness.last)
        if health is not None and health.connectors:
            self.latency_p50_ms = health.connectors[0].latency_p50_ms
            self.latency_p99_ms = health.connectors[0].latency_p99_ms

    @property
    def is_good(self) -> bool:
        """Values arrived, none lost, order kept, and Bad rows only where a device was away."""
        only_plc_faults_are_bad = self.bad_frames == 0 or self.fault == "plc"
        return self.frames > 0 and self.lost == 0 and self.out_of_order == 0 and only_plc_faults_are_bad

    def as_record(self) -> dict[str, Any]:
        record = {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}
        return {"verdict": "ok" if self.is_good else "failed", **record}
