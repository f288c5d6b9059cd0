"""The published description of the API is true, whole and current."""

import json

import pytest

from docs import openapi
from supervisor.daemon.api import documents
from tests.api_daemon import FakeDaemon, FakeJob

PATHS = json.loads(openapi.current())["paths"]
OPERATIONS = [(method, path) for path, methods in PATHS.items() for method in methods]


def test_the_file_is_current():
    """If not: python -m docs.openapi."""
    assert openapi.DOCUMENT.read_text(encoding="utf-8") == openapi.current()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_each_operation_is_described(method, path):
    """In a sentence, with all the ways in which it may be refused."""
    operation = PATHS[path][method]
    assert operation["description"].endswith(".")
    refused = {"400", "401", "403", "408", "421", "422", "429", "431", "500", "503"}
    assert refused <= set(operation["responses"])
    for code, answer in operation["responses"].items():
        assert answer["description"]
        if code >= "400":
            schema = answer["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}


@pytest.mark.parametrize(
    "path", [path for path in PATHS if path.startswith("/v1/jobs/{job}")], ids=str
)
def test_what_names_a_job_may_name_none(path):
    """404 and 409 are described wherever a job is named."""
    for operation in PATHS[path].values():
        assert {"404", "409"} <= set(operation["responses"])


def test_nothing_but_fastapis_own_words_is_missing():
    """Its own form of a validation error, which we never send, is not described."""
    assert "HTTPValidationError" not in openapi.current()


def test_the_documents_are_as_described():
    """The stand-in for the daemon, which these tests believe, answers in the described shapes."""
    row = FakeDaemon()._row(FakeJob("net"))
    assert documents.JobRow.model_validate(row).id == "net"
