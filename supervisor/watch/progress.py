"""What a line of output says about progress: step, total, loss, epoch, rate.

Owns the patterns of progress bars and log lines in common use. Never keeps state and never guesses:
a number counts only in a form that names it, so a timestamp, a path or a date is no step. Every
quantifier below is bounded and only the head of a line is read, so no line is slow.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

LINE_CAP_CHARS = 2048
"""What a pattern gets to see of a line; a user's own may be of the kind that takes for ever."""

STEP_LIMIT = 10**12
"""A greater number is an id, a size or a time, not a step."""

_LATEST_LINES = 500
"""How far back `latest` looks in one chunk."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one line said; None where it said nothing.

    `epoch` may be fractional. `rate` is in steps per second, as the worker itself counts it.
    """

    step: int | None = None
    total: int | None = None
    loss: float | None = None
    epoch: float | None = None
    epochs: float | None = None
    rate: float | None = None

    @property
    def fraction(self) -> float | None:
        """How much is done, 0 to 1, by steps or else by epochs."""
        for done, whole in ((self.step, self.total), (self.epoch, self.epochs)):
            if done is not None and whole:
                return min(1.0, max(0.0, done / whole))
        return None

    def updated(self, newer: "Progress") -> "Progress":
        """Return this with what `newer` knows better; a step takes its own total along."""
        known = {name: value for name in _FIELDS if (value := getattr(newer, name)) is not None}
        if newer.step is not None:
            known["total"] = newer.total
        return replace(self, **known)


_FIELDS = tuple(field.name for field in fields(Progress))
_NOTHING = Progress()

Parser = Callable[[str], Progress | None]
_Found = re.Match[str] | None


def parser_for(parse: str, pattern: str | None = None) -> Parser:
    """Return the function that reads one line. ValueError, in words, for an unusable request.

    `parse` is auto, tqdm or regex; only regex takes a `pattern`, whose groups are named as the
    fields of `Progress`, or unnamed: the first is the step, the second the total.
    """
    if parse == "regex":
        return _regex_parser(pattern)
    if parse not in _PARSERS:
        raise ValueError(f"cannot parse progress as {parse!r}; use auto, tqdm or regex")
    if pattern is not None:
        raise ValueError(f"a pattern is only used with parse: regex, not with parse: {parse}")
    return _PARSERS[parse]


def latest(parse: Parser, lines: Sequence[str], partial: str = "") -> Progress | None:
    """Return the newest value of each field in `lines` and in the line that has no end yet.

    The unfinished line counts only once it ends as a progress bar does: "step 12" may become
    "step 1200". Looks at the last few hundred lines, so a flood of output stays cheap.
    """
    found: Progress | None = None
    newest_first: Iterable[str] = reversed(lines[-_LATEST_LINES:])
    if partial.rstrip().endswith(("]", _CURSOR_UP)):
        newest_first = (partial, *newest_first)
    for line in newest_first:
        said = parse(line)
        if said is not None:
            found = said if found is None else said.updated(found)
            if found.step is not None and found.loss is not None:
                break
    return found


# --- progress bars: tqdm.format_meter(), also behind Lightning, HF Trainer and Ultralytics ---

_CURSOR_UP = "\x1b[A"
_COUNT = r"\d{1,15}(?:\.\d{1,3})?"
_STATS = (
    r"\s?\[-?[\d:]{4,12}(?:<[-\d:?]{1,12})?,\s{0,4}"
    r"(?:\?|(?P<rate>\d{1,9}(?:\.\d{1,3})?)(?P<rate_scale>[kMG]?))"
    r"(?P<per>s/[^\s,\]]{1,20}|[^,\]/]{0,20}/s)"
)
_TIMES = re.compile(r"\[-?[\d:]{4,12}[<,]")
_BAR = re.compile(rf"(?<![\w.])(?P<n>{_COUNT}[kMGT]?)/(?P<total>{_COUNT}[kMGT]?|\?){_STATS}")
_COUNTER = re.compile(
    # "1.20kit [": a scale only before the usual units, or "120Tokens" would be 120e12.
    rf"(?<![\w.])(?P<n>{_COUNT}(?:[kMGT](?=it |B |\s))?) ?[^\s\d\[\]]{{0,20}}{_STATS}"
)
_SCALES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def _parse_bar(line: str) -> Progress | None:
    text = line[:LINE_CAP_CHARS]
    if _TIMES.search(text) is None:
        return None
    # Bars that share a line overwrite each other on a terminal: the last one shows.
    bars = list(_BAR.finditer(text)) or list(_COUNTER.finditer(text))
    if not bars:
        return None
    bar = bars[-1]
    words = text.lower()
    epoch, epochs = _epoch(words)
    said = Progress(loss=_loss(words), epoch=epoch, epochs=epochs)
    if line.rstrip().endswith(_CURSOR_UP):
        # Drawn below another bar, which counts the whole; the step of this one starts over.
        return said if said != _NOTHING else None
    return replace(
        said, step=_step(bar["n"]), total=_step(bar.groupdict().get("total")), rate=_rate(bar)
    )


def _step(text: str | None) -> int | None:
    """Integer of "120", "1,200", "1.20k" or "1.2M"; None for anything else or beyond reason."""
    if not text:
        return None
    digits, scale = (text[:-1], _SCALES[text[-1]]) if text[-1] in _SCALES else (text, 1)
    value = _number(digits.replace(",", ""))
    if value is None or not 0 <= value * scale <= STEP_LIMIT:
        return None
    return round(value * scale)


def _rate(bar: re.Match[str]) -> float | None:
    value = _number(bar["rate"])
    if not value:
        return None
    value *= _SCALES.get(bar["rate_scale"], 1)
    return 1 / value if bar["per"].startswith("s/") else value


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


# --- log lines; every pattern below is given the line in lower case ---

# A date, clock time, path, version or decimal fraction goes on after its first number.
_ENDS = r"(?!\d|[.,/:-]\d)"
_INT = r"(?:\d{1,3}(?:,\d{3}){1,4}|\d{1,12})"
_IS = r"(?:[\"']?\s{0,4}[:=#]\s{0,8}|\s{1,8})[\"'(\[]?\s{0,8}"
_OF = r"\s{0,2}(?:/|of)\s{0,2}"
_FLOAT = r"[-+]?(?:\d{1,20}(?:\.\d{0,25})?(?:e[-+]?\d{1,4})?|\.\d{1,25}|inf(?:inity)?|nan)(?!\w)"

# Words come first and what leads up to them is looked at last: `re` then skips over other text.
_STEP = re.compile(
    rf"(?:global[_ ]step|step|iteration|iter|num_updates){_IS}"
    rf"(?P<n>{_INT})(?:{_OF}(?P<total>{_INT}))?{_ENDS}"
)
# Plurals and batches are settings ("steps: 1000", "batch: 64") unless a total follows.
_STEP_OF = re.compile(
    rf"(?:steps|iterations|iters|batch){_IS}(?P<n>{_INT}){_OF}(?P<total>{_INT}){_ENDS}"
)
_BRACKET = re.compile(
    rf"\[\s{{0,8}}(?P<n>{_INT})\s?/\s?(?P<total>{_INT})(?:\s?\(\s{{0,2}}[\d.]{{1,6}}%\))?\s?\]"
)
_KERAS = re.compile(rf"\s{{0,8}}(?P<n>{_INT})/(?P<total>{_INT})\s(?:\[[=>.]|\u2501)")
_EPOCH = re.compile(
    rf"epoch(?:\(\w{{1,8}}\))?{_IS}(?P<n>\d{{1,9}}(?:\.\d{{1,20}})?)"
    rf"(?:{_OF}(?P<total>\d{{1,9}}))?{_ENDS}"
)
_LOSS = re.compile(rf"loss{_IS}(?:tensor\(|np\.float\d\d\()?(?P<n>{_FLOAT})")
_COUNT_LEAD = re.compile(r"(?:\A|[^\w./-])(?:train(?:er)?/)?\Z")
_LOSS_LEAD = re.compile(
    r"(?:\A|[^\w/-])(?:(?:train|training|total|avg|mean|running|batch|smoothed)[_/])?"
    r"(?<!val )(?<!valid )(?<!validation )(?<!eval )(?<!test )(?<!dev )(?<!best )\Z"
)
_PER_SECOND = re.compile(
    r"(?<![\w.])(?P<rate>\d{1,9}(?:\.\d{1,6})?)(?P<rate_scale>)\s?"
    r"(?P<per>s/(?:it|step|iter)|(?:it|iter|step)s?/s)\b"
)


def _parse_line(line: str) -> Progress | None:
    bar = _parse_bar(line)
    if bar is not None:
        return bar
    text = line[:LINE_CAP_CHARS].lower()
    epoch, epochs = _epoch(text)
    step, total = _counted(text)
    said = Progress(step, total, _loss(text), epoch, epochs)
    if said == _NOTHING:
        return None
    speed = _PER_SECOND.search(text) if "/s" in text or "s/" in text else None
    return replace(said, rate=_rate(speed)) if speed else said


def _counted(text: str) -> tuple[int | None, int | None]:
    """Step and total that the line names."""
    named = None
    if "step" in text or "iter" in text or "batch" in text or "num_updates" in text:
        named = _led(_STEP, text) or _led(_STEP_OF, text)
    if named:
        return _within(_step(named["n"]), _step(named["total"]))
    found = _KERAS.match(text) or (_bracket(text) if "[" in text and "/" in text else None)
    step, total = _within(_step(found["n"]), _step(found["total"])) if found else (None, None)
    return (step, total) if total else (None, None)


def _bracket(text: str) -> _Found:
    # "Epoch [3/30]" counts epochs; "Epoch: [3][120/1000]" has steps behind them.
    epoch = _led(_EPOCH, text) if "epoch" in text else None
    return _BRACKET.search(text, epoch.end() if epoch else 0)


def _led(pattern: re.Pattern[str], text: str, lead: re.Pattern[str] = _COUNT_LEAD) -> _Found:
    """First match that is not the tail of a longer name ("max_step", "runs/step")."""
    for found in pattern.finditer(text):
        if lead.search(text[max(0, found.start() - 24) : found.start()]):
            return found
    return None


def _within(step: int | None, total: int | None) -> tuple[int | None, int | None]:
    """Drop a total that the step has passed: it is not this step's."""
    return step, (total if total and step is not None and step <= total else None)


def _epoch(text: str) -> tuple[float | None, float | None]:
    found = _led(_EPOCH, text) if "epoch" in text else None
    return (_number(found["n"]), _number(found["total"])) if found else (None, None)


def _loss(text: str) -> float | None:
    found = _led(_LOSS, text, _LOSS_LEAD) if "loss" in text else None
    return _number(found["n"]) if found else None


_PARSERS: dict[str, Parser] = {"auto": _parse_line, "tqdm": _parse_bar}


# --- the user's own pattern ---


def _regex_parser(pattern: str | None) -> Parser:
    if not pattern:
        raise ValueError("parse: regex needs a pattern, for instance 'step (\\d+)/(\\d+)'")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from None
    groups = compiled.groupindex or dict(
        zip(_FIELDS[:2], range(1, compiled.groups + 1), strict=False)
    )
    strangers = sorted(set(groups) - set(_FIELDS))
    if strangers:
        raise ValueError(
            f"pattern {pattern!r} has a group {strangers[0]!r}; the names are {', '.join(_FIELDS)}"
        )
    if not groups:
        raise ValueError(f"pattern {pattern!r} has no group; put the step in one: 'step (\\d+)'")

    def parse(line: str) -> Progress | None:
        found = compiled.search(line[:LINE_CAP_CHARS])
        if found is None:
            return None
        texts = {name: (found[group] or "").strip() for name, group in groups.items()}
        said = Progress(
            _step(texts.get("step")),
            _step(texts.get("total")),
            *(_number(texts.get(name)) for name in ("loss", "epoch", "epochs", "rate")),
        )
        return said if said != _NOTHING else None

    return parse
