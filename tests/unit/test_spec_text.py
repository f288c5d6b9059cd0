import json
from pathlib import Path

import pytest

from supervisor.spec.compare import differences
from supervisor.spec.frozen import freeze
from supervisor.spec.load import MAX_FILE_BYTES, load_job, load_text
from supervisor.spec.masking import masked_job
from supervisor.spec.plan import plan
from supervisor.spec.problems import SpecError

SOURCE = Path("/jobs/job.yaml")
JOB = {
    "name": "a",
    "command": ["x", "${lr}", "\U0001f600 \u007f \\ /", 1e-5],
    "params": {"lr": 0.1},
    "resources": {"memory": "4GiB"},
    "after": ["b"],
}


def test_a_job_can_come_as_json_that_stands_nowhere() -> None:
    """Its paths are understood from the folder of the file that it might be."""
    spec = load_text(json.dumps(JOB), SOURCE, {"lr": "5e-1"})

    assert (spec.folder, spec.source) == (Path("/jobs"), SOURCE)
    assert spec.command == ("x", "5e-1", "\U0001f600 \u007f \\ /", "1e-05")


def test_a_text_is_the_job_of_the_file_that_holds_it(tmp_path: Path) -> None:
    """One reading for both."""
    path = tmp_path / "job.yaml"
    text = json.dumps(JOB, indent=2)
    path.write_text(text)

    assert load_job(path) == load_text(text, path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is nothing in this file"),
        ("[]", "the file holds a list instead of a job"),
        ("\0", "character U+0000 is not allowed in YAML"),
        ('{"name": "a", "comand": ["x"]}', "unknown key 'comand'"),
        ("#" * (MAX_FILE_BYTES + 1), "larger than 1 MiB, which no job file is"),
        ("#" + "\u00e9" * (MAX_FILE_BYTES // 2), "larger than 1 MiB, which no job file is"),
        ("name: \ud800", "character U+D800 is not allowed in YAML"),
    ],
)
def test_a_bad_text_is_refused_as_a_bad_file(text: str, message: str) -> None:
    """With the name of the file it would be in."""
    with pytest.raises(SpecError) as caught:
        load_text(text, SOURCE)

    assert (caught.value.problems[0].file, caught.value.problems[0].message) == (
        str(SOURCE),
        message,
    )


def with_env(env: dict[str, str]) -> str:
    """Return a job with these variables, also for its restarts."""
    resume = {"mode": "env", "env": {**env, "FROM": "{path}"}}
    job = {"name": "a", "command": ["x"], "env": env, "resume": resume}
    return json.dumps({**job, "checkpoint": {"glob": "*.pt"}})


def test_secrets_of_a_job_are_in_no_page_and_in_its_frozen_form() -> None:
    """The worker needs them; nobody else does."""
    spec = load_text(with_env({"HF_TOKEN": "hf_abc", "MODE": "fast"}), SOURCE)
    frozen = freeze(spec)

    page = plan(spec)
    data = json.dumps(masked_job(json.loads(frozen)["job"]))

    assert frozen.count("hf_abc") == 2
    assert "hf_abc" not in page + data
    assert page.count("HF_TOKEN") == data.count("HF_TOKEN") + 1 == 3  # also where it is restarted
    assert page.count("fast") == data.count("fast") + 1 == 3


def test_a_changed_secret_is_a_difference_that_shows_neither() -> None:
    """The lines of a difference are shown, and journaled."""
    old, new = (load_text(with_env({"HF_TOKEN": secret}), SOURCE) for secret in ("abc", "xyz"))
    none = load_text(with_env({}), SOURCE)

    assert differences(old, new) == [
        '  env.HF_TOKEN: "***" -> "***"',
        '  resume.env.HF_TOKEN: "***" -> "***"',
    ]
    assert '+ env.HF_TOKEN: "***"' in differences(none, new)
    assert '- env.HF_TOKEN: "***"' in differences(old, none)


@pytest.mark.parametrize("job", [{}, {"env": None}, {"env": [1], "resume": 3}, {"resume": {}}])
def test_masking_copes_with_a_damaged_job(job: dict[str, object]) -> None:
    """What shows a job must not fail for it."""
    assert masked_job(job) == job
