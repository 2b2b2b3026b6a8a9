"""A short run of chaos; `make chaos` is the long one."""

import os
import subprocess
import sys
from pathlib import Path

# Messages are meddled with while both workers live; then a worker, both servers and one of each service are killed.
SEED = 237


def test_whatever_dies_hangs_or_is_delivered_twice_no_job_is_lost_and_none_is_charged_twice():
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos"],
        cwd=Path(__file__).resolve().parents[2],
        env={**inherited, "SEED": str(SEED), "QUICK": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = dict(line.split() for line in done.stdout.splitlines() if line.startswith("chaos_"))
    assert figures["chaos_violations"] == "0"
    assert int(figures["chaos_faults_survived"]) >= 8
    assert int(figures["chaos_messages_meddled"]) > 0
    assert int(figures["chaos_jobs_accepted"]) > 0
