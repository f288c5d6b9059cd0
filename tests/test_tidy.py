"""The style of this repository, as an ordinary test.

Owns the rules that ruff and mypy do not have. A rule is a function that returns what offends it,
each as `file:line: what`; its test is red until that is nothing, and says what to do instead.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parents[1]

LINES_OF_CODE = 300
LINES_OF_TESTS = 500
LINES_OF_FUNCTION = 50
PARAMETERS = 5
LINES_OF_DOCUMENT = {"README.md": 300, "ARCHITECTURE.md": 200, "CONTRIBUTING.md": 80}

VAGUE = {"manager", "handler", "helper", "util", "common", "misc"}
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK|NotImplemented" r"Error)\b")

# Words that claim instead of tell, one person's own paths, and pointers no reader can follow.
UNWANTED = re.compile(
    r"""\b(?: blazing(?:ly)? | seamless(?:ly)? | effortless(?:ly)? | cutting[- ]edge | utili[sz]e\w*
    | state[- ]of[- ]the[- ]art | world[- ]class | best[- ]in[- ]class | battle[- ]tested
    | supercharged? | game[- ]chang\w+ | leverag\w+ | simply | obviously )\b
    | (?<![\w.$}])/(?: work | Users )/
    | \bissue\ \#?\d""",
    re.VERBOSE,
)
# A suppression: which rule, and after a dash or a hash why.
REASON = r"\s*(?:--?|—|#)\s*\S.{2,}"
SUPPRESSIONS = {
    "noqa": rf"#\s*noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*{REASON}",
    "type: ignore": rf"#\s*type: ignore\[[\w-]+(, ?[\w-]+)*\]{REASON}",
    "no cover": rf"no cover{REASON}",
    "no branch": rf"no branch{REASON}",
    "fmt: off": rf"fmt: off{REASON}",
}

# What fails a test when it is called; so does whatever a test module itself builds on these.
PROOFS = {"raises", "fail", "eventually", "usefixtures", "run_state_machine_as_test"}
PROOFS |= {"check_schema"}  # of jsonschema

# Modules that nothing imports, because they are where something outside comes in.
ENTRANCES = {
    "supervisor": "the package itself, for its version",
    "workers": "the package itself",
}


@cache
def tracked() -> tuple[PurePath, ...]:
    """All files that belong to the repository, or will once they are added."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run(
        [*command, "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    names = sorted(set(filter(None, listed.stdout.split("\0"))))
    return tuple(PurePath(name) for name in names if (ROOT / name).is_file())


@cache
def text(path: PurePath) -> str:
    """Content of a file; what is not text reads as empty."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@cache
def tree(path: PurePath) -> ast.Module:
    """Syntax tree of a module."""
    return ast.parse(text(path), filename=str(path))


def modules(*, tests: bool) -> list[PurePath]:
    """Python files in tests/, or all others."""
    python = [path for path in tracked() if path.suffix == ".py"]
    return [path for path in python if (path.parts[0] == "tests") == tests]


def all_modules() -> list[PurePath]:
    """Every Python file."""
    return modules(tests=False) + modules(tests=True)


def prose() -> list[PurePath]:
    """Every text that is ours: not the licence, and not the rules themselves."""
    return [path for path in tracked() if path.name not in {"LICENSE", Path(__file__).name}]


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: PurePath) -> list[Function]:
    """Every function and method of a module."""
    return [node for node in ast.walk(tree(path)) if isinstance(node, Function)]


def calls(path: PurePath) -> list[tuple[ast.Call, str]]:
    """Every call of a module, with the dotted name that is called."""
    found = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    return [(node, ast.unparse(node.func)) for node in found]


def comments(path: PurePath) -> list[tuple[int, str]]:
    """Line number and text of every comment of a module."""
    tokens = tokenize.generate_tokens(io.StringIO(text(path)).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def long_files() -> Iterator[str]:
    """Files longer than a person reads at once."""
    limits = {path: LINES_OF_CODE for path in tracked() if path.suffix in {".py", ".sh", ".sql"}}
    limits |= dict.fromkeys(modules(tests=True), LINES_OF_TESTS)
    limits |= {PurePath(name): limit for name, limit in LINES_OF_DOCUMENT.items()}
    for path, limit in limits.items():
        count = len(text(path).splitlines()) if (ROOT / path).exists() else 0
        if count > limit:
            yield f"{path}: {count} lines, more than {limit}"


def long_functions() -> Iterator[str]:
    """Functions that do not fit on a screen."""
    for path in modules(tests=False):
        for node in functions(path):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LINES_OF_FUNCTION:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines"


def many_parameters() -> Iterator[str]:
    """Functions that want a dataclass."""
    for path in modules(tests=False):
        for node in functions(path):
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            own = [one for one in arguments if one.arg not in {"self", "cls"}]
            count = len(own) + bool(node.args.vararg) + bool(node.args.kwarg)
            if count > PARAMETERS:
                yield f"{path}:{node.lineno}: {node.name} has {count} parameters"


def words_of(name: str) -> set[str]:
    """Words of a name in snake_case, CamelCase or with dashes, singular."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_.\-/]", " ", name)
    return {word.lower().removesuffix("s") for word in spaced.split()}


def vague_names() -> Iterator[str]:
    """Names that say nothing about what is in them."""
    for path in tracked():
        if words_of(str(path)) & VAGUE:
            yield f"{path}: its name"
    for path in all_modules():
        for node in ast.walk(tree(path)):
            if not isinstance(node, (ast.ClassDef, Function)) or node.name.startswith("test_"):
                continue  # the name of a test is a sentence
            if words_of(node.name) & VAGUE:
                yield f"{path}:{node.lineno}: {node.name}"


def unfinished_work() -> Iterator[str]:
    """Marks of work that is not done."""
    yield from _lines_with(UNFINISHED)


def unwanted_words() -> Iterator[str]:
    """Words that say nothing, or that only their writer can follow."""
    yield from _lines_with(UNWANTED)


def _lines_with(pattern: re.Pattern[str]) -> Iterator[str]:
    for path in prose():
        for number, line in enumerate(text(path).splitlines(), start=1):
            if found := pattern.search(line):
                yield f"{path}:{number}: {found[0]!r}"


def sleeping_tests() -> Iterator[str]:
    """Tests that wait for time instead of an event; the fixture `eventually` polls."""
    for path in modules(tests=True):
        for node, name in calls(path):
            if name in {"time.sleep", "sleep"}:
                yield f"{path}:{node.lineno}: {name}"


def reaping_strangers() -> Iterator[str]:
    """Waits for just any child: they take the exit status from whoever waits for that one."""
    for path in all_modules():
        for node, name in calls(path):
            any_child = name.endswith("waitpid") and node.args and ast.unparse(node.args[0]) == "-1"
            if any_child or name in {"os.wait", "os.wait3"}:
                yield f"{path}:{node.lineno}: {ast.unparse(node)}"


def code_between_fork_and_exec() -> Iterator[str]:
    """Python that runs in the child before exec: slow, and unsafe beside threads."""
    for path in all_modules():
        for node, name in calls(path):
            if any(keyword.arg == "preexec_fn" for keyword in node.keywords):
                yield f"{path}:{node.lineno}: {name}(preexec_fn=...)"


def swallowed_errors() -> Iterator[str]:
    """Errors that vanish: say which with contextlib.suppress, or do something about them."""
    for path in all_modules():
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            if node.type is None or all(isinstance(line, ast.Pass) for line in node.body):
                yield f"{path}:{node.lineno}: except {ast.unparse(node.type or ast.Name(''))}"


def suppressions_without_reason() -> Iterator[str]:
    """Rules switched off without naming the rule and, behind a dash, why."""
    for path in all_modules():
        for line, comment in comments(path):
            for mark, shape in SUPPRESSIONS.items():
                if re.search(rf"#.*\b{mark}\b", comment) and not re.search(shape, comment):
                    yield f"{path}:{line}: {comment}"


def modules_without_docstring() -> Iterator[str]:
    """Modules that do not say what they own."""
    for path in modules(tests=False):
        if not ast.get_docstring(tree(path)):
            yield f"{path}: no docstring"


def proofless_tests() -> Iterator[str]:
    """Tests without a sentence on what they prove, or that cannot fail.

    A test whose proof is in a fixture names it: @pytest.mark.usefixtures("unleaked").
    """
    for path in modules(tests=True):
        proofs = PROOFS | {one.name for one in functions(path) if _proves(one, PROOFS)}
        for node in functions(path):
            if node.name.startswith("test_"):
                if not ast.get_docstring(node):
                    yield f"{path}:{node.lineno}: {node.name} has no docstring"
                if not _proves(node, proofs):
                    yield f"{path}:{node.lineno}: {node.name} cannot fail"


def _proves(function: Function, proofs: set[str]) -> bool:
    return any(_is_proof(node, proofs) for node in ast.walk(function))


def _is_proof(node: ast.AST, proofs: set[str]) -> bool:
    if isinstance(node, ast.Assert):
        return not isinstance(node.test, ast.Constant)
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    return last in proofs or last.startswith("assert_")


def dotted(path: PurePath) -> str:
    """Name under which a module is imported."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def dead_modules() -> Iterator[str]:
    """Modules of the product that no other part of it imports, nor names to start them."""
    code = modules(tests=False)
    used = set(ENTRANCES) | _scripts()
    for path in code:
        used |= _used_by(path)
    used |= {name.rpartition(".")[0] for name in used}
    for path in code:
        is_product = path.parts[0] in {"supervisor", "workers"} and path.stem != "__main__"
        if is_product and not {dotted(path), path.name} & used:
            yield f"{path}: imported by nobody"


def _scripts() -> set[str]:
    project = tomllib.loads(text(PurePath("pyproject.toml")))["project"]
    return {target.partition(":")[0] for target in project["scripts"].values()}


def _used_by(path: PurePath) -> set[str]:
    """Names of modules that a module imports, or names in a string to start them."""
    used = set()
    package = dotted(path).split(".") if path.stem == "__init__" else dotted(path).split(".")[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            used |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            used |= set(re.findall(r"^\w+\.py$|\b(?:supervisor|workers)(?:\.\w+)+", node.value))
    return used - {dotted(path)}


Rule = Callable[[], Iterator[str]]
RULES: list[Rule] = [
    long_files,
    long_functions,
    many_parameters,
    vague_names,
    unfinished_work,
    unwanted_words,
    sleeping_tests,
    reaping_strangers,
    code_between_fork_and_exec,
    swallowed_errors,
    suppressions_without_reason,
    modules_without_docstring,
    proofless_tests,
    dead_modules,
]


OFFENCES = {
    long_files: {"a.py": "x = 1\n" * 301, "tests/t.py": "x = 1\n" * 501, "README.md": "\n" * 301},
    long_functions: {"a.py": "def f():\n" + "    x = 1\n" * 50},
    many_parameters: {"a.py": "class A:\n    def f(self, a, b, *c, d, e, **g): ..."},
    vague_names: {"utils.py": "", "b.py": "class JobManager: ...\ndef run_helper(): ..."},
    unfinished_work: {"a.py": "# TODO later", "b.md": "FIXME"},
    unwanted_words: {"a.md": "blazingly", "b.yaml": "see /Users/me/x", "c.sh": "# issue 7"},
    sleeping_tests: {"tests/t.py": "time.sleep(1)"},
    reaping_strangers: {"a.py": "os.waitpid(-1, 0)", "tests/t.py": "os.wait()"},
    code_between_fork_and_exec: {"a.py": "Popen(a, preexec_fn=f)"},
    swallowed_errors: {
        "a.py": "try: f()\nexcept OSError: pass",
        "b.py": "try: f()\nexcept:\n    g()",
    },
    suppressions_without_reason: {
        "a.py": "x = 1  # noqa",
        "b.py": "x = 1  # noqa: E501",
        "c.py": "x = 1  # type: ignore - because",
        "d.py": "x = 1  # pragma: no cover",
    },
    modules_without_docstring: {"a.py": "x = 1"},
    proofless_tests: {
        "tests/a.py": "def test_a(): assert x",
        "tests/b.py": "def test_a():\n    'Proves.'\n    f()",
        "tests/c.py": "def test_a():\n    'Proves.'\n    assert True",
    },
    dead_modules: {"supervisor/a.py": "from . import a", "workers/b/__init__.py": ""},
}
INNOCENT = {
    "supervisor/alive.py": '"""Doc."""\n\ntry:\n    f()\nexcept OSError as error:\n    g(error)\n',
    "workers/launch.py": '"""Doc."""\n\nos.waitpid(pid, 0)  # noqa: X100 - a reason\n',
    "examples/use.py": '"""Doc."""\n\nfrom supervisor import alive\n\nstart("launch.py")\n',
    "tests/t.py": "def test_a():\n    'Proves.'\n    with pytest.raises(OSError):\n        f()\n",
    "a.md": "# Title\nA homework/path, ${HOME}/work, /workers and an issue.\n",
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Give a way to fill a repository of this test's own, which the rules then look at."""
    here = sys.modules[__name__]
    monkeypatch.setattr(here, "ROOT", tmp_path)

    def fill(files: dict[str, str]) -> None:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        monkeypatch.setattr(here, "tracked", lambda: tuple(map(PurePath, files)))
        forget()

    def forget() -> None:
        text.cache_clear()
        tree.cache_clear()

    (tmp_path / "pyproject.toml").write_text("[project]\nscripts = {}\n")
    yield fill
    forget()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_bites(rule: Rule, repository: Callable[..., None]) -> None:
    """Every offence is found, in the file that has it, and an innocent repository has none."""
    repository(INNOCENT)
    assert list(rule()) == []
    repository(INNOCENT | OFFENCES[rule])
    assert {found.partition(":")[0] for found in rule()} == set(OFFENCES[rule])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_tidy(rule: Rule) -> None:
    """Nothing in the repository offends the rule."""
    offences = list(rule())
    if offences:
        pytest.fail("\n  ".join([rule.__doc__ or "", *offences]), pytrace=False)


def test_the_floors_of_the_house(tmp_path: Path) -> None:
    """Who may import whom is as the contracts in pyproject.toml say."""
    linter = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run(
        [linter, "--cache-dir", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if checked.returncode != 0:
        broken = checked.stdout.partition("Broken contracts")[2] or checked.stdout
        pytest.fail(broken + checked.stderr, pytrace=False)
