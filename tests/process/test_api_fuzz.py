"""Every route, with requests that fit the description and requests that do not.

schemathesis makes both from the OpenAPI document and knows what must hold: no error of ours, no
status, type or shape that is not described, nothing accepted that does not fit, and nothing refused
as invalid that does. SUPERVISE_FUZZ is the number of requests for each route and kind.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from docs import openapi
from supervisor.daemon.api.limits import Limits
from tests.api_daemon import FakeDaemon, FakeJob
from tests.api_server import Served, served

EXAMPLES = int(os.environ.get("SUPERVISE_FUZZ", "12"))
NAMES = ("a", "net", "0", "digits-1a2b3c")
# What a schema cannot say of a job that is sent as an object.
UNSAID = ("beyond 10^18", "levels deep")


def accepts_what_fits(context: Any, response: Any, case: Any) -> bool | None:
    """As schemathesis has it, but for what is not said in the schema."""
    if any(words in response.text for words in UNSAID):
        return None
    return checks.positive_data_acceptance(context, response, case)


CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    accepts_what_fits,
    checks.unsupported_method,
]


class Patient(FakeDaemon):
    """Jobs that stay ended, whatever is done to them, so that no request waits."""

    def _end(self, *given: Any) -> dict[str, Any]:
        answer = super()._end(*given)
        self.kept[answer["id"]].state = "succeeded"
        return answer | {"state": "succeeded"}

    async def remove(self, peer: Any, job: str) -> dict[str, Any]:
        """Forget it, and have it again."""
        found = self.kept.get(job)
        answer = await super().remove(peer, job)
        assert found is not None
        self.add(found)
        return answer

    async def subscribe(self, after: int | None = None) -> Any:
        """Tell of one thing, and end."""
        yield {"seq": (after or 0) + 1, "at_s": 1.0, "job": "net", "kind": "Placed"}


@dataclass(frozen=True, slots=True)
class Target:
    """A server over TCP, and its description as schemathesis reads it."""

    served: Served
    schema: Any
    session: requests.Session


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Give a server that all routes are tried on."""
    folder: Path = tmp_path_factory.mktemp("api")
    daemon = Patient()
    for name in NAMES:
        daemon.add(FakeJob(name, os.geteuid(), "succeeded", logs=[b"hello"], over=1))
    doors = {"tcp": "0", "token_file": folder / "token"}
    with served(folder, Limits(), daemon, **doors) as one, requests.Session() as session:
        port = one.server.sockets[-1].getsockname()[1]
        session.headers["Authorization"] = f"Bearer {(folder / 'token').read_text().strip()}"
        described = f"http://127.0.0.1:{port}/openapi.json"
        schema = schemathesis.openapi.from_url(described, headers=dict(session.headers))
        yield Target(one, schema, session)


OPERATIONS = [
    (method, path) for path, methods in openapi.described()["paths"].items() for method in methods
]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_request_surprises_the_api(target, method, path, mode):
    """What fits is served or refused for a reason; what does not is refused; all as described."""
    operation = target.schema[path][method.upper()]
    if mode.is_negative and not (any(operation.iter_parameters()) or operation.body):
        pytest.skip("nothing can be wrong with a request that says nothing")

    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def tried(case: Any) -> None:
        case.call_and_validate(session=target.session, checks=CHECKS)

    tried()
    assert target.served.ask("GET", "/v1/daemon").status == 200
