"""Who lies where: a fixed number of places, given out least recently used first. Policy alone, no tensors."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)


class Places(Generic[KeyT]):
    """Keys in numbered places. A key that is in use stays; of the others the longest unused makes room."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._place: OrderedDict[KeyT, int] = OrderedDict()  # the longest unused first
        self._users: dict[KeyT, int] = {}

    def __contains__(self, key: KeyT) -> bool:
        return key in self._place

    def __getitem__(self, key: KeyT) -> int:
        return self._place[key]

    def take(self, keys: Sequence[KeyT], *, in_use_only: bool = False) -> bool:
        """Use all of `keys`, or none of them and say False.

        `in_use_only` takes none that isn't in use already: for who may not overtake somebody waiting for room.
        """
        wanted = list(dict.fromkeys(keys))
        idle = [key for key in self._place if key not in self._users and key not in wanted]
        new = [key for key in wanted if key not in self._place]
        if len(new) > len(self._free) + len(idle) or (in_use_only and any(key not in self._users for key in wanted)):
            return False
        for key in new:
            self._place[key] = self._free.pop() if self._free else self._place.pop(idle.pop(0))
        for key in wanted:
            self._users[key] = self._users.get(key, 0) + 1
            self._place.move_to_end(key)
        return True

    def release(self, keys: Sequence[KeyT]) -> None:
        for key in dict.fromkeys(keys):
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key]

    def drop(self, key: KeyT) -> None:
        """Empty a place at once, users or not: what was to lie there could not be made."""
        self._free.append(self._place.pop(key))
        self._users.pop(key, None)


@dataclass(frozen=True, slots=True)
class AdapterCosts:
    """Measured when the model is loaded, in seconds: what decides between unmerged and merged adapters."""

    unmerged_per_token: float  # that a step takes longer for a token with an adapter than for one without
    merge: float  # to make merged weights of one adapter
    merged_per_step: float  # that a step takes longer for a row whose weights are its own

    def merging_pays(self, *, token_steps: int, steps: int) -> bool:
        """Whether to merge for work that is left: `steps` steps, whose tokens add up to `token_steps`."""
        return self.merge + steps * self.merged_per_step < token_steps * self.unmerged_per_token

    def merged_is_faster(self, *, tokens: int) -> bool:
        """Whether to use weights that are merged for a step of `tokens` tokens."""
        return self.merged_per_step < tokens * self.unmerged_per_token


NEVER_MERGE = AdapterCosts(unmerged_per_token=0.0, merge=0.0, merged_per_step=0.0)
