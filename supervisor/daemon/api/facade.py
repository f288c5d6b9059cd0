"""What the API asks of the daemon.

Owns that interface and nothing behind it, so the API is tested with a daemon of a few lines. Every
method raises Refusal where it does not do what is asked.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol

from supervisor.daemon.contracts import Json, Peer

Document = dict[str, Json]
Items = Sequence[str | int] | Literal["quarantined"]


class Facade(Protocol):
    """A host's jobs. `job` is an id, or a name or a beginning of an id that is unique."""

    async def submit(
        self, peer: Peer, jobs: Sequence[Mapping[str, Json]], surroundings: Mapping[str, Json]
    ) -> Document:
        """Accept jobs, all or none.

        `jobs`: `id`, `name`, `state` and `new` of each, in order. `left_out`: variables that are
        not stored with all of them.
        """

    async def jobs(self, peer: Peer, /, **wanted: Json) -> list[Document]:
        """The jobs of all users, oldest first: by state, user, group, limit, after_seq."""

    async def ask(
        self, peer: Peer, job: str, question: str, arguments: Mapping[str, Json] | None = None
    ) -> Json:
        """One of the questions to a job's shelf.

        document, explain, report, events {after, limit}, log {attempt, offset, limit, file}, and
        progress, which is answered as {id: {state, step, total, attempt, updated_s}}.
        """

    async def stop(self, peer: Peer, job: str, *, kill: bool = False) -> Document:
        """Ask it to stop, or end it by force: `id`, `state`, `words`."""

    async def cancel(self, peer: Peer, job: str) -> Document:
        """End it for good."""

    async def resume(self, peer: Peer, job: str) -> Document:
        """Let it wait for its turn again."""

    async def retry(self, peer: Peer, job: str, items: Items | None = None) -> Document:
        """The same, with items that were set aside: some, by name or number, or all of them."""

    async def remove(self, peer: Peer, job: str) -> Document:
        """Forget an ended job."""

    async def wait(self, peer: Peer, job: str, timeout_s: float) -> Document:
        """Its `id`, `state`, `exit_code` and `ended`, once it has ended or the time is over."""

    async def groups(self, peer: Peer) -> list[Document]:
        """The groups that this user sees."""

    async def release_group(self, peer: Peer, name: str) -> Document:
        """Let a held group start jobs again."""

    async def gpus(self, peer: Peer, /) -> list[Document]:
        """The GPUs of the host."""

    async def release_gpu(self, peer: Peer, uuid: str, /) -> Document:
        """Let a GPU that was set aside be used again."""

    async def status(self) -> Document:
        """The daemon itself."""

    def subscribe(self, peer: Peer, after: int | None = None) -> AsyncIterator[Document]:
        """What happens in the queue from now on, or behind a sequence number."""
