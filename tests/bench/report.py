"""Named figures of a benchmark: printed when measured, again as `name value` lines last, and in RESULTS.md by RECORD=1.

Every report has the machine's speed (`machine_python_loop_ms`), measured before the first figure and after the last.
"""

import datetime
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.machine import python_loop_ms

RESULTS = Path(__file__).parent / "RESULTS.md"


@dataclass
class Report:
    """Named figures; each may have a target, and a lowest and highest value if it was measured several times."""

    figures: list[tuple[str, float, str]] = field(default_factory=list)
    spreads: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    loops_ms: list[float] = field(default_factory=lambda: [python_loop_ms()])

    def add(
        self,
        name: str,
        value: float,
        *,
        target_min: float | None = None,
        target_max: float | None = None,
        of: Sequence[float] = (),
    ) -> None:
        """`of` holds the measurements whose median is `value`."""
        target = ""
        if target_min is not None:
            target = f">= {target_min}, {'met' if value >= target_min else 'NOT met'}"
        elif target_max is not None:
            target = f"<= {target_max}, {'met' if value <= target_max else 'NOT met'}"
        self.figures.append((name, value, target))
        if of:
            self.spreads[name] = min(of), max(of)
        say(f"  {name} {value:.4g}  {target}")

    def note(self, text: str) -> None:
        """Print a remark, and keep it beside the table."""
        self.notes.append(text)
        say(f"  {text}")

    def lines(self) -> str:
        lines = []
        for name, value, _ in self.figures:
            lines.append(f"{name} {value:.4g}")
            if name in self.spreads:
                lowest, highest = self.spreads[name]
                lines += [f"{name}_lowest {lowest:.4g}", f"{name}_highest {highest:.4g}"]
        return "\n".join(lines)

    def table(self) -> str:
        rows = []
        for name, value, target in self.figures:
            spread = "{:.4g} to {:.4g}".format(*self.spreads[name]) if name in self.spreads else ""
            rows.append(f"| `{name}` | {value:.4g} | {spread} | {target} |")
        return "\n".join(["| figure | value | from, to | target |", "| --- | --- | --- | --- |", *rows])

    def publish(self, title: str, command: str, device: str, *, seconds: float, quick: bool) -> None:
        """Print all figures, and write them to the top of RESULTS.md if RECORD is set."""
        self.loops_ms.append(python_loop_ms())
        self.add("machine_python_loop_ms", statistics.median(self.loops_ms), of=self.loops_ms)
        when = datetime.datetime.now(datetime.UTC).date().isoformat()
        head = f"## {title}, {when}, {device}{', QUICK' if quick else ''}\n\n`{command}`, {seconds:.0f} s.\n"
        head += "".join(f"\n{note}\n" for note in self.notes)
        if os.environ.get("RECORD"):
            before, mark, tables = RESULTS.read_text().partition("\n## ")
            RESULTS.write_text(f"{before}\n{head}\n{self.table()}\n{mark}{tables}")
        print(f"\n{head}\n{self.lines()}")  # noqa: T201


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
