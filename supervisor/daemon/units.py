"""The daemon's unit files: where they come from, what they say here, and where systemd finds them.

Owns the templates' placeholders and the question whose a file is. Starts nothing, and writes no
file. Invariant: a file without our mark is somebody else's, and so is one that starts another
program.
"""

import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import supervisor

MARK = "Written by `supervise daemon install"
SERVICE = "supervise.service"
SOCKET = "supervise.socket"
SLICE = "supervise.slice"
TARGET = "supervise-jobs.target"

SYSTEM_STATE = Path("/var/lib/supervise")
# Of packages and administrators; a file in /etc hides one of the same name there.
OTHER_PLACES = ("usr/local/lib/systemd/system", "usr/lib/systemd/system")

_PLAIN = re.compile(r"[\w@+,./:=-]+", re.ASCII)
_UNSAFE = set("$\"'\\")  # systemd takes no program with these in its path, however quoted
_EXEC_START = re.compile(r"^ExecStart=[-@:+!|]*(.*)$", re.MULTILINE)
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Refused(Exception):
    """Something that is not installed or removed; the message says what, why and what to do."""


@dataclass(frozen=True, slots=True)
class Program:
    """What the service is to start: the command, its interpreter, and the modules of both."""

    command: Path
    parts: tuple[Path, ...] = ()

    @classmethod
    def this(cls) -> "Program":
        """The program that runs now.

        Raises:
            Refused: it was not installed as a command.
        """
        python = Path(sys.executable)
        command = python.with_name("supervise")
        if not os.access(command, os.X_OK):
            raise Refused(
                f"there is no command {command} for the service to start. Install supervise with "
                f"pip: {python} -m pip install 'gpu-supervise[daemon]'"
            )
        package = Path(supervisor.__file__).parent
        library = Path(os.__file__).parent
        return cls(command, (python, library, package, package.with_name("workers")))

    def closed_to_others(self) -> Path | None:
        """What keeps an ordinary user from running it; None: nothing does."""
        wanted = ((place, stat.S_IXOTH) for place in self._places())
        ends = ((part.resolve(), stat.S_IROTH) for part in (self.command, *self.parts))
        for place, bit in (*wanted, *ends):
            if not place.stat().st_mode & bit:
                return place
        return None

    def open_to_change(self) -> Path | None:
        """What somebody other than root could change in it; None: nothing."""
        for place in self._places():
            seen = place.stat()
            is_sticky_folder = stat.S_ISDIR(seen.st_mode) and seen.st_mode & stat.S_ISVTX
            writable = seen.st_mode & _WRITABLE_BY_OTHERS and not is_sticky_folder
            if seen.st_uid != 0 or (writable and (seen.st_gid != 0 or seen.st_mode & stat.S_IWOTH)):
                return place
        return None

    def _places(self) -> Iterator[Path]:
        """All that is passed on the way to its files, by their names and by where links lead."""
        seen: set[Path] = set()
        for part in (self.command, *self.parts):
            for path in (part.absolute(), part.resolve()):
                for place in (one.resolve() for one in (*reversed(path.parents), path)):
                    if place not in seen:
                        seen.add(place)
                        yield place


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the files of an installation are: of the system, or (`user`) of one user."""

    user: bool
    units: Path
    state_dir: Path
    root: Path = Path("/")

    @classmethod
    def of_system(cls, root: Path) -> "Layout":
        """Below `root`, which is / but for tests and packages."""
        state = root / SYSTEM_STATE.relative_to("/")
        return cls(user=False, units=root / "etc/systemd/system", state_dir=state, root=root)

    @classmethod
    def of_user(cls, state_dir: Path, prefix: Path | None) -> "Layout":
        """In the user's configuration folder, or in `prefix` instead of it."""
        given = os.environ.get("XDG_CONFIG_HOME", "")
        config = Path(given) if given.startswith("/") else Path.home() / ".config"
        units = (prefix or config) / "systemd/user"
        return cls(user=True, units=units, state_dir=state_dir)

    def files(self) -> dict[Path, Path]:
        """Each file, and the template that it is made of."""
        templates = _templates()
        kind = templates / ("user" if self.user else "system")
        files = {self.units / one.name: one for one in sorted(kind.iterdir())}
        if not self.user:
            for kind in (templates / "sysusers.d", templates / "tmpfiles.d"):
                one = kind / "supervise.conf"
                files[self.root / "etc" / kind.name / one.name] = one
        return files

    def rendered(self, program: Program) -> dict[Path, str]:
        """What each file is to say.

        Raises:
            Refused: a path that no unit can name.
        """
        names = {"@SUPERVISE@": word(program.command, is_program=True)}
        names["@STATE_DIR@"] = word(self.state_dir)
        return {file: _filled(template, names) for file, template in self.files().items()}

    def strangers(self, program: Program | None) -> list[str]:
        """What is in the way: files of somebody else, or (`program`) of another installation."""
        found = []
        for file in self.files():
            text = _text(file)
            if text is not None and MARK not in text:
                found.append(f"{file}, which supervise did not write")
        service = _text(self.units / SERVICE)
        other = started_by(service) if service and MARK in service else None
        if program is not None and other not in {None, str(program.command)}:
            found.append(f"{self.units / SERVICE}, which starts {other}")
        if not self.user:
            elsewhere = [self.root / place / SERVICE for place in OTHER_PLACES]
            found += [f"{one}, which a package owns" for one in elsewhere if one.exists()]
        return found

    def ours(self) -> list[Path]:
        """The files that are there and that we wrote."""
        return [file for file in self.files() if MARK in (_text(file) or "")]


def _templates() -> Path:
    package = Path(supervisor.__file__).parent
    for folder in (package / "systemd", package.with_name("systemd")):  # a wheel, a checkout
        if (folder / "system" / SERVICE).is_file():
            return folder
    raise Refused(f"the unit files are missing from {package}: install supervise again")


def _filled(template: Path, names: Mapping[str, str]) -> str:
    text = template.read_text(encoding="utf-8")
    for name, value in names.items():
        text = text.replace(name, value)
    return text


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def word(path: Path, *, is_program: bool = False) -> str:
    """A path as one word of ExecStart= (systemd.service(5)): its first, or one after it.

    Raises:
        Refused: it holds what cannot be written there.
    """
    text = str(path)
    if not text.isprintable() or (is_program and _UNSAFE & set(text)):
        raise Refused(f"a unit cannot name the path {text!r}; use one with plain characters")
    text = text.replace("%", "%%")  # specifiers
    if not is_program:
        text = text.replace("$", "$$")
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def started_by(unit: str) -> str | None:
    """The program that a unit's text starts; None if it names none."""
    found = _EXEC_START.search(unit)
    if found is None:
        return None
    quoted = re.match(r'"((?:[^"\\]|\\.)*)"', found[1])
    first = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else found[1].split(" ")[0]
    return first.replace("%%", "%")
