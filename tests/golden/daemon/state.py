"""The golden state folders of daemons: how one is brought to another place.

Owns the paths and the user in them: what is committed says FOLDER, PYTHON and user 0, and a copy
says where it is and whose. Nothing else of it is ever changed.
"""

import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = "/golden/jobs"
PYTHON = "/golden/python"
BOOT = "00000000-0000-4000-8000-000000000000"
DATABASES = ("queue.sqlite", "journal.sqlite")


def copied(version: str, state_dir: Path, folder: Path) -> None:
    """Copy a golden state to `state_dir`, as if its jobs had been submitted in `folder`."""
    shutil.copytree(HERE / version, state_dir)
    for path in (state_dir, *state_dir.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    for name in DATABASES:
        moved(state_dir / name, FOLDER, str(folder))
        moved(state_dir / name, PYTHON, sys.executable)
    with closing(sqlite3.connect(state_dir / "queue.sqlite")) as queue, queue:
        for table in ("entries", "groups"):
            queue.execute(f"UPDATE {table} SET uid = ?", [os.getuid()])  # noqa: S608 -- two words


def moved(file: Path, old: str, new: str) -> None:
    """Replace a text in all texts of a database, also in those that nothing else may change."""
    with closing(sqlite3.connect(file)) as database, database:
        made = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
        triggers = [(name, sql) for kind, name, _, sql in made if kind == "trigger"]
        for name, _ in triggers:
            database.execute(f'DROP TRIGGER "{name}"')
        for kind, table, _, _ in made:
            if kind == "table" and not table.startswith("sqlite_"):
                for column in database.execute(f'PRAGMA table_info("{table}")').fetchall():
                    _replace(database, table, column[1], (old, new))
        for _, sql in triggers:
            database.execute(sql)


def _replace(
    database: sqlite3.Connection, table: str, column: str, change: tuple[str, str]
) -> None:
    old, new = change
    where = f'typeof("{column}") = \'text\' AND instr("{column}", :old)'
    statement = f'UPDATE "{table}" SET "{column}" = replace("{column}", :old, :new) WHERE {where}'  # noqa: S608 -- names of our own schema
    database.execute(statement, {"old": old, "new": new})
