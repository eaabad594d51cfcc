"""Fuzzing of everything that reads bytes or tables from outside.

    python -m tools.fuzz mqtt-client --cases 1000000 --seed 7
    python -m tools.fuzz --list

Each case may end only in the errors that its target declares, within CASE_S, and with an allocation that is bounded
by its length (judge.py). Cases come from a seeded mutator over a pool that grows by behaviour (campaign.py); seeds and
what was found are kept in tests/fuzz/, and tests/fuzz/test_fuzz.py runs all of them, and a few new ones, with every
test run.
"""
