"""`edge verify-delivery` with experiments of its own: what it runs, what it writes, how it ends, what it leaves."""

from __future__ import annotations

import asyncio
import inspect
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from framegate.cli import exits
from framegate.cli.main import main
from framegate.cli.verify import campaign, command
from framegate.cli.verify.campaign import EXPERIMENTS, choose
from framegate.cli.verify.doomed import target_of
from framegate.cli.verify.experiment import Experiment, PromiseBroken, Result, Run, Scratch
from framegate.cli.verify.places import PHASES, PLACES, Place
from framegate.cli.verify.rig import Rig, largest_gap, steps_back
from framegate.contract.errors import Misconfigured, StoreFailed
from framegate.testing.account import Account, Frame, Notice

WAIT_S_MAX = 20.0


def experiment(name: str, run: Run) -> Experiment:
    return Experiment(name=name, promise=f"{name} holds.", run=run, rounds=2, rounds_full=50)


async def good(scratch: Scratch) -> Result:
    scratch.say("half way")
    (scratch.folder / "file").write_text("x")
    return Result(
        rounds=scratch.rounds, acknowledged=1_234, slowest_recovery_s=0.5, figures={"hits": 7, "seed": scratch.seed}
    )


async def bad(scratch: Scratch) -> Result:
    return Result(rounds=1, lost=3, broken=["3 rows were lost without a word"])


async def unfit(scratch: Scratch) -> Result:
    return Result(skipped="no disk to cut off")


async def late(scratch: Scratch) -> Result:
    raise PromiseBroken("waited in vain")


async def torn(scratch: Scratch) -> Result:
    raise StoreFailed("durable log: gone", code="E3003")


KNOWN = {run.__name__: experiment(run.__name__, run) for run in (good, bad, unfit, late, torn)}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "EXPERIMENTS", tuple(KNOWN.values()))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, dict[str, object]], str]:
    """Exit code, rows of the record by name, and what people see."""
    code = main(["verify-delivery", *words])
    out, err = capsys.readouterr()
    return code, {row["name"]: row for row in json.loads(out)["experiments"]}, err


def test_held_promises_end_with_0_and_one_record(capsys: pytest.CaptureFixture[str]) -> None:
    code, rows, err = run(capsys, "--only", "good", "--seed", "7")
    assert code == exits.OK
    assert rows["good"] == {
        "name": "good", "promise": "good holds.", "verdict": "held", "seed": 7, "took_s": rows["good"]["took_s"],
        "rounds": 2, "acknowledged": 1_234, "lost": 0, "duplicated": 0, "out_of_order": 0, "largest_gap": 0,
        "slowest_recovery_s": 0.5, "figures": {"hits": 7, "seed": 7}, "broken": [], "skipped": "",
    }  # fmt: skip
    assert "Every promise held over 1,234 acknowledged rows." in err


def test_broken_promise_ends_with_1_and_says_how_to_see_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    code, rows, err = run(capsys, "--only", "good", "bad", "--seed", "9")
    assert code == exits.FAILED
    assert (rows["good"]["verdict"], rows["bad"]["verdict"]) == ("held", "broken")
    assert "bad: BROKEN: 3 rows were lost without a word" in err
    assert "Broken: bad; run one again with --only NAME --seed 9." in err


def test_skipped_experiment_is_named_and_breaks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, rows, err = run(capsys, "--only", "unfit", "--only", "good")
    assert code == exits.OK
    assert rows["unfit"]["verdict"] == "skipped"
    assert "unfit: skipped: no disk to cut off" in err
    assert "not shown on this machine: unfit" in err


def test_nothing_shown_is_no_promise_held(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-delivery", "--only", "unfit"]) == exits.OK
    out, err = capsys.readouterr()
    assert json.loads(out)["verdict"] == "skipped"
    assert "Nothing was shown; not shown on this machine: unfit." in err


@pytest.mark.parametrize("name", ["late", "torn"])
def test_experiment_that_cannot_go_on_is_broken_and_the_others_run(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows, _ = run(capsys, "--only", name, "good")
    assert code == exits.FAILED
    assert rows[name]["verdict"] == "broken"
    assert rows["good"]["verdict"] == "held"


@pytest.mark.parametrize(
    ("words", "rounds"), [((), 2), (("--full",), 50), (("--rounds", "5"), 5), (("--full", "--rounds", "5"), 5)]
)
def test_rounds_are_the_experiment_s_own_or_as_told(
    words: tuple[str, ...], rounds: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _, rows, _ = run(capsys, "--only", "good", *words)
    assert rows["good"]["rounds"] == rounds


def test_json_file_holds_the_record_and_stdout_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-delivery", "--only", "good", "--json", str(tmp_path / "found.json")]) == exits.OK
    assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "found.json").read_text())["verdict"] == "held"


def test_list_tells_names_and_promises_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-delivery", "--list"]) == exits.OK
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == list(KNOWN)
    assert rows[0]["rounds_full"] == 50


def test_unknown_name_is_refused_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-delivery", "--only", "nothing"]) == exits.MISCONFIGURED
    assert "choose among good, bad" in capsys.readouterr().err
    with pytest.raises(Misconfigured, match="E4026"):
        choose(["nothing"], EXPERIMENTS)


def test_experiments_of_the_product_have_names_of_their_own() -> None:
    names = [one.name for one in EXPERIMENTS]
    assert len(set(names)) == len(names)
    for one in EXPERIMENTS:
        assert 0 < one.rounds <= one.rounds_full
        assert one.promise.endswith(".")
        assert inspect.iscoroutinefunction(one.run)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place.moment} {place.target}")
def test_place_to_die_at_exists_in_the_product(place: Place) -> None:
    _, _, method = target_of(place)
    assert callable(method)
    assert place.phase in PHASES


def test_every_phase_has_places() -> None:
    assert {place.phase for place in PLACES} == set(PHASES)


SLOW = """
import asyncio, sys
from pathlib import Path
from framegate.cli.main import main
from framegate.cli.verify import command
from framegate.cli.verify.experiment import Experiment, Result

async def wait(scratch):
    Path(sys.argv[1]).write_text(str(scratch.folder))
    try:
        await asyncio.sleep(60)
    finally:
        Path(sys.argv[1] + ".tidied").write_text("")
    return Result()

command.EXPERIMENTS = (Experiment("slow", "Slow.", wait, 1, 1),)
sys.exit(main(["verify-delivery"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_tidily(number: signal.Signals, tmp_path: Path) -> None:
    told = tmp_path / "told"
    with subprocess.Popen([sys.executable, "-c", SLOW, str(told)], stderr=subprocess.PIPE) as verify:
        deadline = time.monotonic() + WAIT_S_MAX
        while not told.exists() or not told.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        verify.send_signal(number)
        _, err = verify.communicate(timeout=WAIT_S_MAX)
    assert verify.returncode == exits.INTERRUPTED, err
    assert b"Traceback" not in err
    assert Path(f"{told}.tidied").exists()
    assert not Path(told.read_text()).parent.exists()


@pytest.mark.parametrize(("load", "is_judged"), [(0.5, True), (100.0, False)])
def test_late_is_broken_only_where_the_machine_had_time(
    load: float, is_judged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    result = Result()
    result.late("ready after 4 s only")
    assert result.broken == (["ready after 4 s only"] if is_judged else [])
    assert result.figures == ({} if is_judged else {"not judged": "ready after 4 s only; load 100 on 2 cores"})


def frame(position: int, value: int | None) -> Frame:
    return Frame(position, "n0", value, 1, 0)


def test_steps_back_counts_values_below_an_earlier_one() -> None:
    account = Account()
    account.frames = {place: frame(place, value) for place, value in enumerate([1, 2, None, 5, 4, 5, 6], 1)}
    assert steps_back(account) == 1


def test_largest_gap_counts_announced_and_silent_positions_alike() -> None:
    account = Account()
    account.frames = {place: frame(place, 1) for place in (1, 2, 6, 7, 9)}
    account.notices = [Notice(3, 5, "damage")]
    assert largest_gap(account, 9) == 3
    assert largest_gap(account, 20) == 11


async def test_judge_tells_each_broken_promise(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.account.frames = {place: frame(place, value) for place, value in ((1, 5), (2, 4), (5, 6))}
    rig.account.notices = [Notice(3, 3, "damage")]
    rig.account.conflicts, rig.account.repeats = 1, rig.wiring.repeats_max + 1
    result = Result()
    rig.judge(result, 5, losses=1)
    assert (result.acknowledged, result.lost, result.out_of_order, result.largest_gap) == (3, 2, 1, 2)
    assert len(result.broken) == 5
    told = Result()
    rig.judge(told, 5, losses=2, may_announce=True)
    assert (told.lost, len(told.broken)) == (1, 3)


def test_campaign_leaves_no_folder_of_an_experiment_behind(tmp_path: Path) -> None:
    chosen = [KNOWN["good"], KNOWN["late"]]
    entries = asyncio.run(campaign.run_all(chosen, tmp_path, is_full=False, rounds=None, seed=1, say=lambda _: None))
    assert [entry.result.rounds for entry in entries] == [2, 0]
    assert list(tmp_path.iterdir()) == []
