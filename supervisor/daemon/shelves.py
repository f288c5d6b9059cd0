"""Shelves of users' jobs, and who answers about them: a thread of ours, or a clerk of theirs.

Owns when a clerk begins and ends, how long one waits for an answer, and which questions go side by
side: those that may take long (a kill, a removal) have a lane of their own. Invariant: the event
loop never waits for a disk, and a user's trouble is nobody else's.
"""

import asyncio
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from supervisor.daemon.accounts import Account, Lookup, UnknownAccount, account, barred
from supervisor.daemon.clerk_answers import checked
from supervisor.daemon.clerk_parts import parts_of, together
from supervisor.daemon.clerk_process import ClerkLost, ClerkProcess, Post
from supervisor.daemon.contracts import Json, Shelf, ShelfUnavailable
from supervisor.daemon.desk import is_slow
from supervisor.daemon.desk_thread import DeskThread
from supervisor.daemon.launch_command import PYTHON
from supervisor.daemon.shelf_folders import known_users, own_shelf, user_shelf

ANSWER_S = 30.0
SLOW_ANSWER_S = 120.0
IDLE_S = 60.0
LEAVE_S = 2.0
PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # before another clerk, where one after the other is lost
FORGIVEN_S = 600.0
# What is not to be done twice when a clerk died without a word about it.
ONCE = frozenset({"stop", "requeue", "remove", "sweep", "conclude_stop", "conclude_cancel"})


class LocalShelf:
    """The shelf of this daemon's own user, answered for in this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._desks: dict[bool, DeskThread] = {}

    async def ask(self, question: str, arguments: Mapping[str, Json]) -> Json:
        """Answer one question. Raises Refusal."""
        slow = is_slow(question, arguments)
        desk = self._desks.get(slow)
        if desk is None:
            desk = self._desks[slow] = DeskThread(self.path)
        limit_s = SLOW_ANSWER_S if slow else ANSWER_S
        try:
            async with asyncio.timeout(limit_s):
                return await desk.ask(question, arguments)
        except TimeoutError as error:
            if self._desks.get(slow) is desk:  # it hangs; another one begins with the next question
                del self._desks[slow]
                desk.dismiss()
            raise _too_slow(self.path, limit_s) from error

    async def close(self) -> None:
        """End its threads."""
        desks, self._desks = list(self._desks.values()), {}
        await asyncio.gather(*(one.end(LEAVE_S) for one in desks))


class ClerkShelf:
    """The shelf of another user, answered for by processes of that user.

    `prepare` says where a clerk works; it is asked anew before each of them, and raises Refusal.
    """

    def __init__(self, path: Path, prepare: Callable[[], Post], idle_s: float = IDLE_S) -> None:
        self.path = path
        self._lanes = {slow: Lane(path, prepare, idle_s) for slow in (False, True)}

    async def ask(self, question: str, arguments: Mapping[str, Json]) -> Json:
        """Answer one question. Raises Refusal."""
        slow = is_slow(question, arguments)
        limit_s = SLOW_ANSWER_S if slow else ANSWER_S
        answers = []
        for part in parts_of(question, arguments):
            answer = await self._lanes[slow].ask(question, part, limit_s)
            answers.append(checked(question, part, answer))
        return together(answers)

    async def close(self) -> None:
        """End its clerks."""
        await asyncio.gather(*(one.close() for one in self._lanes.values()))


class Losses:
    """How long the next clerk has to wait: after the first that was lost not at all."""

    def __init__(self) -> None:
        self._count = 0
        self._last_s = 0.0

    def add(self, now_s: float) -> None:
        """Note that a clerk was lost; what was long ago is forgiven."""
        self._count = self._count + 1 if now_s - self._last_s < FORGIVEN_S else 1
        self._last_s = now_s

    def left_s(self, now_s: float) -> float:
        """So long none is begun."""
        if self._count <= 1:
            return 0.0
        pause_s = min(LONGEST_PAUSE_S, PAUSE_S * 2.0 ** min(self._count - 2, 16))
        return max(0.0, self._last_s + pause_s - now_s)


class Lane:
    """One clerk at a time: begun when something is asked, ended when nothing was for a while."""

    def __init__(self, path: Path, prepare: Callable[[], Post], idle_s: float) -> None:
        self._path = path
        self._prepare = prepare
        self._idle_s = idle_s
        self._clerk: ClerkProcess | None = None
        self._losses = Losses()
        self._beginning = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def clerk(self) -> ClerkProcess | None:
        """The one that is there now."""
        return self._clerk

    async def ask(self, question: str, arguments: Mapping[str, Json], limit_s: float) -> Json:
        """Answer, within a time. Raises Refusal."""
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        if self._idle is not None:
            self._idle.cancel()
        try:
            async with asyncio.timeout(limit_s):
                return await self._answered(question, arguments)
        except TimeoutError as error:
            clerk = self._clerk
            if clerk is not None and clerk.heard_s < asked_s:  # not busy with others: stuck
                self._dismiss(clerk)
            raise _too_slow(self._path, limit_s) from error
        finally:
            if self._clerk is not None and self._clerk.is_idle:
                self._idle = loop.call_later(self._idle_s, self._rest)

    async def close(self) -> None:
        """End the clerk."""
        if self._idle is not None:
            self._idle.cancel()
        if self._clerk is not None:
            self._dismiss(self._clerk)
        await asyncio.gather(*self._endings)

    async def _answered(self, question: str, arguments: Mapping[str, Json]) -> Json:
        clerk = await self._ready()
        try:
            return await clerk.ask(question, arguments)
        except ClerkLost as error:
            self._lose(clerk)
            if question in ONCE:
                raise self._lost(error, " It may have been done, or not: look.") from error
        clerk = await self._ready()
        try:
            return await clerk.ask(question, arguments)
        except ClerkLost as error:
            self._lose(clerk)
            raise self._lost(error) from error

    async def _ready(self) -> ClerkProcess:
        async with self._beginning:
            if self._clerk is not None and not self._clerk.is_lost:
                return self._clerk
            if self._clerk is not None:
                self._lose(self._clerk)
            self._refuse_haste()
            # The user database may be behind a network, the folder on a slow disk.
            post = await asyncio.to_thread(self._prepare)
            try:
                # Not in a thread: the kernel ends a clerk with the thread that began it.
                self._clerk = clerk = ClerkProcess(post)
            except (OSError, ValueError) as error:
                raise ShelfUnavailable(
                    f"{self._path}: a process of its user could not be started: {error}"
                ) from error
            try:
                await clerk.connect()
            except ClerkLost as error:
                self._lose(clerk)
                raise self._lost(error) from error
            except BaseException:
                self._dismiss(clerk)
                raise
            return clerk

    def _refuse_haste(self) -> None:
        """Raise ShelfUnavailable while one clerk after the other is lost: each start costs all."""
        left_s = self._losses.left_s(asyncio.get_running_loop().time())
        if left_s > 0:
            raise ShelfUnavailable(
                f"the processes that look after {self._path} end again and again. "
                f"Another one may begin in {math.ceil(left_s)} s; try again then."
            )

    def _lose(self, clerk: ClerkProcess) -> None:
        if self._clerk is clerk:
            self._losses.add(asyncio.get_running_loop().time())
            self._dismiss(clerk)

    def _rest(self) -> None:
        if self._clerk is not None and self._clerk.is_idle:
            self._dismiss(self._clerk)

    def _dismiss(self, clerk: ClerkProcess) -> None:
        if self._clerk is not clerk:
            return  # another question has seen to it
        self._clerk = None
        ending = asyncio.get_running_loop().create_task(clerk.end())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def _lost(self, error: ClerkLost, more: str = "") -> ShelfUnavailable:
        return ShelfUnavailable(
            f"the process that looks after {self._path} ended without an answer ({error}).{more}"
        )


def _too_slow(path: Path, limit_s: float) -> ShelfUnavailable:
    return ShelfUnavailable(
        f"nobody answered about {path} within {limit_s:.0f} s: its disk, or the host, is slow or "
        "hangs. Try again."
    )


class UserShelves:
    """The one shelf of a user's daemon: its state folder. Raises ShelfUnavailable."""

    def __init__(self, path: Path) -> None:
        self._uid = os.geteuid()
        self._shelf = LocalShelf(own_shelf(path))

    def of(self, uid: int) -> Shelf:
        """The shelf of this daemon's user. Raises ShelfUnavailable for any other."""
        if uid != self._uid:
            raise ShelfUnavailable(f"this daemon serves uid {self._uid} alone, and not uid {uid}")
        return self._shelf

    def known(self) -> Sequence[int]:
        """Its user."""
        return [self._uid]

    async def close(self) -> None:
        """Close it."""
        await self._shelf.close()


class SystemShelves:
    """The shelves below the system daemon's state folder, `users/<uid>` each."""

    def __init__(
        self, state_dir: Path, lookup: Lookup = account, python: Sequence[str] = PYTHON
    ) -> None:
        self._state_dir = state_dir
        self._lookup = lookup
        self._python = python
        self._shelves: dict[int, ClerkShelf] = {}

    def of(self, uid: int) -> Shelf:
        """The shelf of a user, made if there is none yet. Raises ShelfUnavailable."""
        shelf = self._shelves.get(uid)
        if shelf is None:
            post = self._post(uid)
            shelf = self._shelves[uid] = ClerkShelf(post.shelf, lambda: self._post(uid))
        return shelf

    def known(self) -> Sequence[int]:
        """Users who have a folder."""
        return known_users(self._state_dir)

    async def close(self) -> None:
        """End all clerks."""
        await asyncio.gather(*(one.close() for one in self._shelves.values()))

    def _post(self, uid: int) -> Post:
        try:
            who = self._lookup(uid)
        except UnknownAccount as error:
            raise ShelfUnavailable(str(error)) from error
        if uid != os.geteuid() and (reason := barred(who, self._python[0])):
            raise ShelfUnavailable(reason)
        path = user_shelf(self._state_dir, who)
        return Post(path, _other(who), self._python)


def _other(who: Account) -> Account | None:
    return None if who.uid == os.geteuid() else who
