"""Named figures of a benchmark: said as they come, `name value` lines last, and written to RESULTS.md by RECORD=1."""

import datetime
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"


@dataclass
class Report:
    """Named figures, with a target where there is one, and how far they went where they were measured several times."""

    figures: list[tuple[str, float, str]] = field(default_factory=list)
    spreads: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(
        self,
        name: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        of: Sequence[float] = (),
    ) -> None:
        """`of` is what `value` is the middle of."""
        target = (
            "" if at_least is None and at_most is None else f">= {at_least}" if at_most is None else f"<= {at_most}"
        )
        if target:
            met = value >= at_least if at_least is not None else value <= (at_most or 0.0)
            target += ", met" if met else ", NOT met"
        self.figures.append((name, value, target))
        if of:
            self.spreads[name] = min(of), max(of)
        say(f"  {name} {value:.4g}  {target}")

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
        """Prints what was found, and keeps it on top of RESULTS.md if asked to."""
        when = datetime.datetime.now(datetime.UTC).date().isoformat()
        head = f"## {title}, {when}, {device}{', QUICK' if quick else ''}\n\n`{command}`, {seconds:.0f} s.\n"
        if os.environ.get("RECORD"):
            before = RESULTS.read_text() if RESULTS.exists() else "# What was measured\n"
            first, _, rest = before.partition("\n")
            RESULTS.write_text(f"{first}\n\n{head}\n{self.table()}\n{rest}")
        print(f"\n{head}\n{self.lines()}")  # noqa: T201


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
