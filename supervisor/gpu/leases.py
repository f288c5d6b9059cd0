"""GPUs held by jobs: taking, seeing and giving back, among all runners of a host.

Owns the order of steps; who may have what is judged in `free`. One lease is one file and one lock,
however many GPUs it is of, so a job never holds a part of what it wants, and two jobs never wait
for each other. The lock belongs to the open file, which the worker tree inherits: a lease ends when
the last process that has it is gone, whoever was killed, and never before. A program that closes
what it inherited has left it; that is one more reason to look at who is on a GPU as well.
"""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.gpu import aside, lease_files, shared_folder
from supervisor.gpu.aside import SetAside
from supervisor.gpu.free import Facts, Refused, Want, choose
from supervisor.gpu.lease_files import LeaseRecord, Owner
from supervisor.gpu.model import Inventory, Reading
from supervisor.gpu.shared_folder import LeaseFolderUnusable, MutexBusy, lease_folder
from supervisor.host.identity import boot_id

__all__ = [
    "Lease",
    "LeaseFolderUnusable",
    "LeaseRecord",
    "Leases",
    "Owner",
    "Refused",
    "SetAside",
    "Want",
    "lease_folder",
]

MUTEX_WAIT_S = 5.0  # a decision takes milliseconds; whoever needs longer is stopped or hostile


@dataclass(slots=True)
class Lease:
    """GPUs that are this job's. `fds` are to be inherited by its worker tree."""

    uuids: tuple[str, ...]
    folder: Path
    file: str
    fds: tuple[int, ...] = field(default=())

    def release(self) -> bool:
        """Let go of it. False: a process of the worker tree still holds it, and so it stays."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()
        try:
            with shared_folder.opened(self.folder, make=False) as folder:
                return lease_files.remove_unheld(folder, self.file)
        except FileNotFoundError:
            return True
        except (OSError, LeaseFolderUnusable):  # the folder is not what it was: nothing is proven
            return False


@dataclass(frozen=True, slots=True)
class Leases:
    """The leases of this host. Every call blocks, for `wait_s` at worst: not for an event loop."""

    folder: Path
    wait_s: float = MUTEX_WAIT_S

    def acquire(
        self,
        want: Want,
        inventory: Inventory,
        readings: Iterable[Reading],
        owner: Owner,
        own_pids: frozenset[int] = frozenset(),
    ) -> Lease | Refused:
        """Lease all that is wanted, or nothing, saying why. Never raises for what it finds.

        Args:
            want: what the job asks for.
            inventory: the GPUs of the host.
            readings: what they do; as fresh as can be, for nothing is read again.
            owner: the job and its runner.
            own_pids: processes of the job's own tree, which are no strangers on a GPU.

        """
        try:
            with shared_folder.alone(self.folder, self.wait_s) as folder:
                facts = Facts(
                    inventory,
                    {one.uuid: one for one in readings},
                    tuple(lease_files.sweep(folder)),
                    tuple(aside.sweep(folder, boot_id())),
                    own_pids,
                )
                chosen = choose(want, facts)
                if isinstance(chosen, Refused):
                    return chosen
                return self._take(folder, chosen, want, owner)
        except (MutexBusy, LeaseFolderUnusable) as error:
            return Refused(str(error), never=False)
        except OSError as error:
            why = error.strerror or str(error)
            return Refused(f"GPU leases cannot be kept in {self.folder}: {why}", never=False)

    def _take(self, folder: int, uuids: tuple[str, ...], want: Want, owner: Owner) -> Lease:
        record = LeaseRecord(
            file="",
            owner=owner,
            uuids=uuids,
            share=want.share,
            memory_bytes=want.memory_bytes,
            at_s=time.time(),
            user=os.geteuid(),
        )
        fd, name = lease_files.write(folder, record)
        return Lease(uuids, self.folder, name, (fd,))

    def records(self) -> list[LeaseRecord]:
        """The leases that hold. Removes nothing, and keeps nobody from anything.

        Raises:
            LeaseFolderUnusable: the folder cannot be read or trusted.

        """
        try:
            with shared_folder.opened(self.folder, make=False) as folder:
                return lease_files.live(folder)
        except FileNotFoundError:  # nobody ever leased anything
            return []

    def set_aside(self, uuid: str, reason: str, owner: Owner) -> None:
        """Let nobody use a GPU until it is released or the host rebooted. Waits for nobody.

        Raises:
            LeaseFolderUnusable: the folder cannot be used or trusted.
            OSError: it could not be written.

        """
        one = SetAside(uuid, reason, owner.job_id, time.time(), boot_id())
        with shared_folder.opened(self.folder, make=True) as folder:
            aside.write(folder, one)

    def set_asides(self) -> list[SetAside]:
        """What is set aside, oldest first.

        Raises:
            LeaseFolderUnusable: the folder cannot be read or trusted.

        """
        try:
            with shared_folder.opened(self.folder, make=False) as folder:
                return aside.current(folder, boot_id())
        except FileNotFoundError:
            return []

    def release(self, uuid: str) -> bool:
        """Let a GPU that was set aside be used again; anybody may. False if it was not.

        Raises:
            LeaseFolderUnusable: the folder cannot be used or trusted.
            OSError: its record can be neither emptied nor removed.

        """
        try:
            with shared_folder.opened(self.folder, make=False) as folder:
                return aside.release(folder, uuid)
        except FileNotFoundError:
            return False
