"""The first acceptance, as a customer runs it: the script in examples/mvp0."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "mvp0" / "accept.sh"
SCRIPT_S_MAX = 110
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


@pytest.mark.campaign
@pytest.mark.skipif(
    not all(shutil.which(program, path=PATH) for program in ("mosquitto", "mosquitto_sub")),
    reason="mosquitto is not installed",
)
def test_mvp0_accept_script_counts_ten_thousand_messages() -> None:
    done = subprocess.run([SCRIPT], capture_output=True, text=True, timeout=SCRIPT_S_MAX, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accepted: 10000 messages on 1000 topics" in done.stdout
