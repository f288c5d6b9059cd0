"""Many item numbers in little memory: runs of consecutive ones.

Owns taking from the front and giving back. A job of a million untouched items is one range; where
half of them are done, in between, it is many, and they are never copied.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

Range = tuple[int, int]
"""First and last number, both included."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Numbers that wait, in the order in which they are taken.

    `returned` come first: they were taken and given back. Then come `ranges`, from `at` on; what is
    before was taken. `count` is how many numbers wait.
    """

    ranges: tuple[Range, ...] = ()
    at: int = 0
    returned: tuple[Range, ...] = ()
    count: int = 0

    @classmethod
    def of(cls, ranges: Iterable[Range]) -> "Pending":
        """All numbers of these ranges."""
        all_ranges = tuple(ranges)
        return cls(all_ranges, count=sum(last - first + 1 for first, last in all_ranges))

    def __len__(self) -> int:
        return self.count

    def take(self, count: int) -> tuple[tuple[int, ...], "Pending"]:
        """The first `count` numbers, or as many as there are, and what is left without them."""
        taken: list[int] = []
        returned, at = list(reversed(self.returned)), self.at
        while len(taken) < count and (returned or at < len(self.ranges)):
            if returned:
                first, last = returned.pop()
            else:
                first, last = self.ranges[at]
                at += 1
            end = min(last, first + count - len(taken) - 1)
            taken.extend(range(first, end + 1))
            if end < last:
                returned.append((end + 1, last))
        left = replace(
            self, at=at, returned=tuple(reversed(returned)), count=self.count - len(taken)
        )
        return tuple(taken), left

    def give_back(self, numbers: Iterable[int]) -> "Pending":
        """The same with these numbers in front: whoever was near its turn stays so."""
        again = together(numbers)
        more = sum(last - first + 1 for first, last in again)
        return replace(self, returned=again + self.returned, count=self.count + more)


def together(numbers: Iterable[int]) -> tuple[Range, ...]:
    """These numbers as ranges, ascending."""
    found: list[Range] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)
