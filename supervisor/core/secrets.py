"""Which environment variables look like secrets, and how those are shown.

Owns the guess by name and by value; keeps nothing, and knows no job. What it calls a secret is
masked in every output, and of the submitter's own environment it is not stored unless it is named.
Invariant: a guess; a secret under an innocent name is not found, and nothing relies on that it is.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

MASK: Final = "***"

# A name is its words: what stands between underscores, dashes, dots and capitals, without digits
# at the end. KEY is a word of API_KEY and of no KEYBOARD; AUTH is none of XAUTHORITY, which names a
# file, nor TOKEN of TOKENIZERS_PARALLELISM. TOKENS are counted in this trade (MAX_TOKENS).
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET = frozenset(
    (
        *("key", "keys", "apikey", "apikeys", "token", "secret", "secrets", "jwt", "bearer", "pat"),
        *("password", "passwords", "passwd", "passphrase", "passcode", "sshpass"),
        *("credential", "credentials", "cred", "creds", "auth", "oauth", "authorization"),
        *("cookie", "cookies", "private", "dsn", "webhook"),
    )
)
# Words that are written together: PGPASSWORD, GHTOKEN, AWSSECRETKEY; of `key` only these, since a
# monkey is none.
_ENDINGS = (
    *("password", "passwd", "passphrase", "secret", "token"),
    *("apikey", "secretkey", "accesskey", "privatekey"),
)
# Secret as the last word alone: PASS_RATE is none; PWD and OLDPWD are folders, DB_PWD is not.
_AT_THE_END = frozenset(("pass", "pwd"))
_PAIRS = frozenset((("connection", "string"), ("conn", "str"), ("connection", "str")))
# What only says where something lies: SSH_AUTH_SOCK, POSTGRES_PASSWORD_FILE. Whoever reads the path
# has not read what is there, and a job cannot do without it.
_PLACES = frozenset(("sock", "socket", "file", "path", "dir"))
# scheme://user:password@host, up to the last @ before the path; a user alone is a token in http.
_IN_URL = re.compile(r"(?P<start>[A-Za-z][A-Za-z0-9+.-]{0,31}://)(?P<user>[^\s:/?#@]*):[^\s/?#]*@")
_ALONE_IN_URL = re.compile(r"(?P<start>\bhttps?://)[^\s:/?#]+@")


def looks_secret(name: str) -> bool:
    """Whether a variable of this name is likely to hold what nobody else may read."""
    words = [word for found in _WORD.findall(name) if not (word := found.lower()).isdigit()]
    if not words or words[-1] in _PLACES:
        return False
    if words[-1] in _AT_THE_END and name.lower() != "pwd":
        return True
    if any(pair in _PAIRS for pair in pairwise(words)):
        return True
    return any(word in _SECRET or word.endswith(_ENDINGS) for word in words)


def masked_value(value: str) -> str:
    """The value with the passwords masked that stand in its addresses (`user:***@host`)."""
    if "://" not in value:
        return value
    hidden = _IN_URL.sub(rf"\g<start>\g<user>:{MASK}@", value)
    return _ALONE_IN_URL.sub(rf"\g<start>{MASK}@", hidden)


def is_secret(name: str, value: str) -> bool:
    """Whether the variable is a secret by its name, or holds one in an address."""
    return bool(value) and (looks_secret(name) or masked_value(value) != value)


def visible(name: str, value: str) -> str:
    """The value as others may read it; that it is empty is no secret."""
    return MASK if value and looks_secret(name) else masked_value(value)


def masked(env: Mapping[str, str]) -> dict[str, str]:
    """The variables as others may read them, in the same order."""
    return {name: visible(name, value) for name, value in env.items()}


def without_secrets(
    env: Mapping[str, str], keep: Iterable[str] = ()
) -> tuple[dict[str, str], tuple[str, ...]]:
    """What of an environment may be stored, and the names of what was left out.

    `keep` are names that are stored whatever they look like (`env_keep`).
    """
    named = frozenset(keep)
    secret = {name for name in env if name not in named and is_secret(name, env[name])}
    kept = {name: value for name, value in env.items() if name not in secret}
    return kept, tuple(name for name in env if name in secret)
