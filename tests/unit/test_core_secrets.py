import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.secrets import (
    MASK,
    is_secret,
    looks_secret,
    masked,
    masked_value,
    visible,
    without_secrets,
)

GUARDED = """
API_KEY WANDB_API_KEY OPENAI_API_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY KEY KEYS KEY2 APIKEY
MYAPIKEY AWSSECRETKEY apiKey APIKey x-api-key HF_TOKEN GITHUB_TOKEN GHTOKEN NPM_TOKEN2 OAUTH2_TOKEN
hub.token CLIENT_SECRET SECRET SECRETS DB_PASSWORD PGPASSWORD dbPassword MYSQL_PWD DB_PASS PASS
SSHPASS SMTP_PASSWD GPG_PASSPHRASE GOOGLE_APPLICATION_CREDENTIALS AZURE_CREDS HTTP_AUTH
BASIC_AUTH_USER SESSION_COOKIE PRIVATE_KEY_PEM SENTRY_DSN DATABASE_DSN GITHUB_PAT JWT
SLACK_WEBHOOK_URL AZURE_STORAGE_CONNECTION_STRING
"""
INNOCENT = """
PATH HOME PWD OLDPWD INIT_CWD LANG KEYBOARD KEYBOARD_LAYOUT KEYMAP MONKEY HISTKEY XAUTHORITY AUTHOR
AUTHORITY TOKENIZERS_PARALLELISM MAX_TOKENS SSH_AUTH_SOCK SSH_ASKPASS GIT_ASKPASS PASS_RATE BYPASS
COMPASS_DIR POSTGRES_PASSWORD_FILE AWS_SHARED_CREDENTIALS_FILE SECRET_DIR KRB5CCNAME PATTERN
SECRETARY COOKIECUTTER PRIVATEER CUDA_VISIBLE_DEVICES OMP_NUM_THREADS HF_HOME API_URL 123 _
"""
passwords = st.text(string.ascii_letters + string.digits + "!$%&*+@:", min_size=12)


@pytest.mark.parametrize("name", GUARDED.split())
def test_a_name_of_a_secret_is_known(name: str) -> None:
    """What people call their secrets, and the tools of the trade theirs."""
    assert looks_secret(name)


@pytest.mark.parametrize("name", INNOCENT.split())
def test_a_name_that_only_resembles_one_is_left_alone(name: str) -> None:
    """A job must not lose what it needs: words count whole, and a path is not what is there."""
    assert not looks_secret(name)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://ann:pw@proxy:8080/x?y=1", "http://ann:***@proxy:8080/x?y=1"),
        ("redis://:pw@host/0", "redis://:***@host/0"),
        ("postgresql+psycopg://u:p@ss@h:5/db", "postgresql+psycopg://u:***@h:5/db"),
        ("https://ghp_abc@github.com/a/b", "https://***@github.com/a/b"),
        ("https://to@ken@github.com", "https://***@github.com"),
        ("a http://u:p@h b http://v:q@i", "a http://u:***@h b http://v:***@i"),
        ("ssh://git@github.com/a", "ssh://git@github.com/a"),
        ("http://host:80/a@b:c", "http://host:80/a@b:c"),
        ("user@host:path", "user@host:path"),
        ("10:30", "10:30"),
        ("", ""),
    ],
)
def test_a_password_in_an_address_is_masked_and_no_more(value: str, shown: str) -> None:
    """Whom it is for stays readable: proxies and databases are told by it."""
    assert shown == masked_value(value)
    assert shown == visible("INNOCENT", value)


@given(st.sampled_from(GUARDED.split()), passwords)
def test_no_secret_by_name_is_shown(name: str, value: str) -> None:
    """Whatever it is, nothing of it can be read."""
    assert masked({name: value}) == {name: MASK}


@given(st.sampled_from(["http", "postgres", "s3+x"]), st.text("abc", max_size=3), passwords)
def test_no_password_in_an_address_is_shown(scheme: str, user: str, password: str) -> None:
    """Also one with @ and : in it, which should have been escaped."""
    value = f"{scheme}://{user}:{password}@host/path"

    assert masked({"A": value}) == {"A": f"{scheme}://{user}:***@host/path"}


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=40)), st.sets(st.text(max_size=12)))
def test_masking_copes_with_anything_and_masks_once(env: dict[str, str], keep: set[str]) -> None:
    """Names and their order stay; what may be stored is what needs no mask, or was named."""
    shown = masked(env)
    stored, left_out = without_secrets(env, keep)

    assert list(env) == list(shown)
    assert shown == masked(shown)
    assert [name for name in env if name not in stored] == list(left_out)
    assert stored == {
        name: value for name, value in env.items() if name in keep or not is_secret(name, value)
    }


def test_of_an_environment_what_is_named_is_stored() -> None:
    """`env_keep` is how its owner says that a secret may be written down."""
    env = {"HF_TOKEN": "x", "WANDB_API_KEY": "y", "http_proxy": "http://u:p@h", "A": "1"}

    stored, left_out = without_secrets(env, ["HF_TOKEN", "NOT_THERE"])

    assert stored == {"HF_TOKEN": "x", "A": "1"}
    assert left_out == ("WANDB_API_KEY", "http_proxy")


def test_an_empty_variable_is_no_secret() -> None:
    """That a token is empty is often what is wrong, and must be seen."""
    assert not is_secret("HF_TOKEN", "")
    assert visible("HF_TOKEN", "") == ""


def test_a_hostile_value_costs_no_time() -> None:
    """A megabyte of what begins an address and never is one."""
    for text in ("a" * 10**6, "a://" * 10**5, "a://" + ":" * 10**6, "http://" + "b@" * 10**5):
        assert len(masked_value(text)) <= len(text) + len(MASK)
