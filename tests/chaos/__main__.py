"""Breaks a running Easel by a seeded schedule under load, and checks that nothing was lost and nothing done twice.

`make chaos SEEDS=50` runs seeds 1 to 50 on one stack, `make chaos SEED=17` that one alone. The last lines are
`name value`; exits 1 when anything was violated, after the schedule and the story of each job concerned.
"""

import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.report import Report, say
from tests.chaos.stack import Stack

_JOB = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def main() -> int:
    single = os.environ.get("SEED")
    seeds = [int(single)] if single else list(range(1, int(os.environ.get("SEEDS") or 10) + 1))
    faults = 12 if os.environ.get("QUICK") else 24
    home = Path(tempfile.mkdtemp(prefix="easel-chaos-"))
    stack = Stack(home)
    begun = time.monotonic()
    survived = accepted = meddled = wrong = 0
    try:
        stack.start()
        from tests.chaos.run import Run
        from tests.chaos.verdict import story

        say(f"the stack runs in {home}, after {time.monotonic() - begun:.0f} s")
        for seed in seeds:
            since = time.monotonic()
            run = Run(stack, seed, faults=faults, apart_seconds=0.8)
            broken = run.violations()
            survived, accepted = survived + len(run.survived), accepted + run.accepted
            meddled, wrong = meddled + run.meddled, wrong + len(broken)
            say(
                f"seed {seed}: {len(run.survived)} faults survived, {run.meddled} messages meddled with,"
                f" {run.accepted} jobs accepted, {len(broken)} violations, {time.monotonic() - since:.0f} s"
            )
            if broken:
                say("\n".join(["", *broken, "", f"make chaos SEED={seed}", *map(str, run.schedule), ""]))
                for job_id in dict.fromkeys(_JOB.findall("\n".join(broken))):
                    say(story(job_id, stack.log))
    finally:
        stack.stop()
    if not wrong:
        shutil.rmtree(home, ignore_errors=True)
    report = Report()
    report.add("chaos_seeds", len(seeds))
    report.add("chaos_faults_survived", survived)
    report.add("chaos_messages_meddled", meddled)
    report.add("chaos_jobs_accepted", accepted)
    report.add("chaos_violations", wrong, target_max=0)
    report.publish(
        "Chaos",
        f"make chaos SEED={single}" if single else f"make chaos SEEDS={len(seeds)}",
        f"{os.cpu_count()} cores",
        seconds=time.monotonic() - begun,
        quick=faults == 12,
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
