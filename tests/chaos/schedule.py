"""What breaks and when: chosen by a seed, so that a run can be repeated."""

import random
from dataclasses import dataclass

SERVICES = ("api-1", "api-2", "dispatcher-1", "dispatcher-2", "completion-1", "completion-2", "scheduler")
WORKERS = ("worker-1", "worker-2")
SERVERS = ("redis", "postgres")
MESSAGES = ("tasks", "reports")
LEASE_SECONDS = 3


@dataclass(frozen=True)
class Fault:
    """At `at_seconds` of a run: `kind` strikes `target`, for `seconds` where that has a meaning."""

    at_seconds: float
    kind: str
    target: str
    seconds: float = 0.0

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at_seconds:5.1f} s  {self.kind} {self.target}{lasting}"


def schedule(seed: int, *, faults: int, apart_seconds: float) -> list[Fault]:
    """Dealt from a shuffled deck, so that a run of some length has a bit of everything."""
    chance = random.Random(seed)
    deck: list[Fault] = []
    at_seconds = 0.0
    while len(deck) < faults:
        hand = [("kill", name) for name in (*SERVICES, *SERVERS, *WORKERS)]
        hand += [("pause", name) for name in chance.sample((*SERVICES, *SERVERS, *WORKERS), 7)]
        hand += [("flush", "redis"), *(("meddle", name) for name in MESSAGES * 2)]
        chance.shuffle(hand)
        for kind, target in hand[: faults - len(deck)]:
            at_seconds += chance.uniform(0.4, 1.6) * apart_seconds
            deck.append(Fault(at_seconds, kind, target, _seconds(chance, kind, target)))
    return deck


def _seconds(chance: random.Random, kind: str, target: str) -> float:
    if kind == "meddle":
        return chance.uniform(2, 5)
    if kind != "pause":
        return 0.0
    if target in SERVERS:  # nothing at all happens meanwhile
        return chance.uniform(0.2, 2)
    # A third of them longer than a lease: whoever wakes then holds what is another's by now.
    return chance.choice((chance.uniform(0.2, 1), chance.uniform(1, 3), LEASE_SECONDS * 1.7))
