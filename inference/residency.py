"""Policy of adapters on the device, without tensors: the allocation of slots, and the choice to merge."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)


class SlotAllocator(Generic[KeyT]):
    """Keys in numbered slots, with reference counts: a key in use stays, the least recently used of the others goes."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._slots: OrderedDict[KeyT, int] = OrderedDict()  # the least recently used first
        self._references: dict[KeyT, int] = {}

    def __contains__(self, key: KeyT) -> bool:
        return key in self._slots

    def __getitem__(self, key: KeyT) -> int:
        return self._slots[key]

    def acquire(self, keys: Sequence[KeyT], *, in_use_only: bool = False) -> bool:
        """Take a reference to each of `keys` and return True, or take none and return False.

        With `in_use_only`, acquire only keys that are in use already: such a caller does not overtake the callers
        that wait for a free slot.
        """
        wanted = list(dict.fromkeys(keys))
        idle = [key for key in self._slots if key not in self._references and key not in wanted]
        new = [key for key in wanted if key not in self._slots]
        if len(new) > len(self._free) + len(idle):
            return False
        if in_use_only and any(key not in self._references for key in wanted):
            return False
        for key in new:
            self._slots[key] = self._free.pop() if self._free else self._slots.pop(idle.pop(0))
        for key in wanted:
            self._references[key] = self._references.get(key, 0) + 1
            self._slots.move_to_end(key)
        return True

    def release(self, keys: Sequence[KeyT]) -> None:
        """Drop one reference to each of `keys`; they stay resident until their slots are needed."""
        for key in dict.fromkeys(keys):
            self._references[key] -= 1
            if not self._references[key]:
                del self._references[key]

    def drop(self, key: KeyT) -> None:
        """Free a slot at once, referenced or not, because it could not be filled."""
        self._free.append(self._slots.pop(key))
        self._references.pop(key, None)


@dataclass(frozen=True, slots=True)
class AdapterCosts:
    """Seconds measured when the model is loaded, from which unmerged or merged adapters are chosen."""

    unmerged_per_token_seconds: float  # extra time of a step for each token with an unmerged adapter
    merge_seconds: float  # time to merge one adapter into a copy of the weights
    merged_per_step_seconds: float  # extra time of a step for each row with weights of its own

    def merging_pays(self, *, token_steps: int, steps: int) -> bool:
        """Return True if a merge is cheaper for the work left: `steps` steps with `token_steps` tokens in all."""
        merged = self.merge_seconds + steps * self.merged_per_step_seconds
        return merged < token_steps * self.unmerged_per_token_seconds

    def merged_is_faster(self, *, tokens: int) -> bool:
        """Return True if a step of `tokens` tokens is faster on weights that are already merged."""
        return self.merged_per_step_seconds < tokens * self.unmerged_per_token_seconds


NEVER_MERGE = AdapterCosts(0.0, 0.0, 0.0)
