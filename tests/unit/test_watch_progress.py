import io
import math
from typing import Any

import pytest
from tqdm import tqdm

from supervisor.watch.progress import Parser, Progress, latest, parser_for

AUTO = parser_for("auto")
TQDM = parser_for("tqdm")

LOG_LINES = {
    "step 120/1000": Progress(step=120, total=1000),
    "step: 120": Progress(step=120),
    "Steps 120 of 1000": Progress(step=120, total=1000),
    "iter 120": Progress(step=120),
    "iteration=120": Progress(step=120),
    "global_step=7": Progress(step=7),
    "'train/global_step': 7": Progress(step=7),
    "2024-05-01 12:00:00,123 INFO step 5: ok": Progress(step=5),
    "step 1,200/10,000": Progress(step=1200, total=10_000),
    "step 1200/1000": Progress(step=1200),
    "batch 3/64": Progress(step=3, total=64),
    "[120/1000]": Progress(step=120, total=1000),
    "Epoch 3/30": Progress(epoch=3, epochs=30),
    "Epoch [3/30] loss 0.5": Progress(loss=0.5, epoch=3, epochs=30),
    "Epoch [3/30], Step [100/600], Loss: 0.12": Progress(100, 600, 0.12, 3, 30),
    "Epoch: [3][ 10/5005]\tTime 0.1 (0.2)\tLoss 6.9e+0 (6.9)": Progress(10, 5005, 6.9, 3),
    "Train Epoch: 1 [640/60000 (1%)]\tLoss: 2.3": Progress(640, 60_000, 2.3, 1),
    "Epoch(train) [1][ 50/937]  lr: 0.1  loss: 0.5": Progress(50, 937, 0.5, 1),
    "eta: 0:10:00  iter: 19  total_loss: 1.2  lr: 1e-3": Progress(19, None, 1.2),
    "120/1000 [==>....] - ETA: 1:00 - loss: 0.5": Progress(120, 1000, 0.5),
    "120/1000 ━━━━ 10s 5ms/step - loss: 0.5": Progress(120, 1000, 0.5),
    "{'loss': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}": Progress(loss=0.5, epoch=0.1),
    "{'loss': '0.5', 'epoch': '0.1'}": Progress(loss=0.5, epoch=0.1),
    '{"step":10,"loss":1.5e0,"time":1700000000.5}': Progress(10, None, 1.5),
    "step 540/2700 epoch 12/60 loss 0.1234 98.2 it/s": Progress(540, 2700, 0.1234, 12, 60, 98.2),
    "step 5 2.0 s/it": Progress(step=5, rate=0.5),
    "train_loss: 1e-3": Progress(loss=1e-3),
    "epoch 3 val_loss 0.2 train/loss=0.4": Progress(loss=0.4, epoch=3),
    "test loss 0.3, loss 0.5": Progress(loss=0.5),
    "loss: tensor(0.5, grad_fn=<NllLossBackward0>)": Progress(loss=0.5),
    "train loss: -inf": Progress(loss=-math.inf),
}


@pytest.mark.parametrize(("line", "expected"), LOG_LINES.items())
def test_usual_log_lines(line: str, expected: Progress) -> None:
    """The forms that scripts and frameworks print are read without configuration."""
    assert AUTO(line) == expected


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan"])
def test_a_loss_that_is_not_a_number_is_a_float(text: str) -> None:
    """A diverged run is seen as such."""
    said = AUTO(f"step 3 loss: {text}")
    assert said.step == 3
    assert math.isnan(said.loss)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "hello",
        "step",
        "loss",
        "step 2024-01-01 12:00:00",
        "step 12:30:11",
        "step 12/05/2024",
        "step 1700000000.123",
        "step 99999999999999999999",
        "step_1700000000",
        "timestep 1700000000",
        "2024-01-01 12:00:00,123 [INFO] ready",
        "saving runs/2024/step 12/model.pt to /data/step=120",
        "saved checkpoints/epoch=3-step=1200.ckpt",
        "max_steps: 1000, steps: 1000, epochs: 30, batch: 64, warmup_steps=10",
        "[01/02/2024] [9/3] [1700000000]",
        "val_loss: 0.3, val loss 0.3, eval/loss 0.3",
        "loss function: mse",
        "gloss 0.5",
        "http://host:8080/step/12",
    ],
)
def test_what_is_no_progress(line: str) -> None:
    """Timestamps, paths, dates and settings are never taken for a step."""
    assert AUTO(line) is None


def real_bar(n: int, elapsed: float = 10.0, **options: Any) -> str:
    """What tqdm itself prints, made by its own formatter."""
    options.setdefault("total", 1000)
    return tqdm.format_meter(n=n, elapsed=elapsed, **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"n": 120}, Progress(120, 1000, rate=12)),
        ({"n": 0, "elapsed": 0}, Progress(0, 1000)),
        ({"n": 1000}, Progress(1000, 1000, rate=100)),
        ({"n": 1001}, Progress(1001, None, rate=100.1)),
        ({"n": 5}, Progress(5, 1000, rate=0.5)),
        ({"n": 120, "elapsed": 400_000}, Progress(120, 1000, rate=pytest.approx(0.0003, rel=0.1))),
        ({"n": 120, "total": None}, Progress(120, None, rate=12)),
        ({"n": 120, "total": None, "prefix": "Epoch 3"}, Progress(120, epoch=3, rate=12)),
        ({"n": 120, "total": None, "unit": "Tokens"}, Progress(120, rate=12)),
        ({"n": 120, "total": None, "unit": " img"}, Progress(120, rate=12)),
        ({"n": 1200, "total": None, "unit_scale": True}, Progress(1200, rate=120)),
        ({"n": 1_200_000, "total": 2_000_000, "unit_scale": True, "unit": "B"},
         Progress(1_200_000, 2_000_000, rate=120_000)),
        ({"n": 5, "unit_scale": True}, Progress(5, 1000, rate=0.5)),
        ({"n": 120, "ncols": 0}, Progress(120, 1000, rate=12)),
        ({"n": 120, "ascii": True, "ncols": 120}, Progress(120, 1000, rate=12)),
        ({"n": 120, "postfix": "loss=0.123, lr=1e-3"}, Progress(120, 1000, 0.123, rate=12)),
        ({"n": 120, "prefix": "loss 0.5"}, Progress(120, 1000, 0.5, rate=12)),
        ({"n": 120, "prefix": "Epoch 3/30", "postfix": "v_num=0, train_loss=0.5"},
         Progress(120, 1000, 0.5, 3, 30, 12)),
        ({"n": 120, "prefix": "files 1/2 [a]"}, Progress(120, 1000, rate=12)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("parse", [AUTO, TQDM])
def test_real_progress_bars(parse: Parser, options: dict[str, Any], expected: Progress) -> None:
    """Every shape that tqdm's own formatter gives is read."""
    assert parse(real_bar(**options)) == expected


def test_nested_bars_give_the_step_of_the_outer_one() -> None:
    """The bar below restarts with every epoch: it tells its loss, but is not the step."""
    screen = io.StringIO()
    with tqdm(total=3, file=screen, mininterval=0, desc="all") as outer:
        for _ in range(3):
            with tqdm(total=50, file=screen, mininterval=0, leave=False) as inner:
                for n in range(50):
                    inner.set_postfix(loss=n)
                    inner.update()
            outer.update()
    said = [
        said for line in screen.getvalue().replace("\r", "\n").split("\n") if (said := AUTO(line))
    ]
    assert {one.step for one in said} == {None, 0, 1, 2, 3}
    assert {one.total for one in said} == {None, 3}
    assert max(one.loss for one in said if one.loss is not None) == 49


def test_of_two_bars_on_a_line_the_last_counts() -> None:
    """Bars that a log has run together are read as a terminal would show them."""
    assert AUTO(real_bar(120) + real_bar(130)).step == 130


def test_tqdm_reads_bars_alone() -> None:
    """With parse: tqdm other lines are no progress."""
    assert TQDM("step 120/1000 loss 0.5") is None


def test_only_the_head_of_a_line_is_read() -> None:
    """A line of megabytes is not searched to its end."""
    assert AUTO("x" * 3000 + " step 120") is None


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [
        (r"at (\d+)", "at 120", Progress(step=120)),
        (r"(\d+) von (\d+)", "120 von 1000", Progress(step=120, total=1000)),
        (r"L(?P<loss>\S+) S(?P<step>\d+)?", "Lnan2 S7", Progress(step=7)),
        (r"L(?P<loss>\S+) S(?P<step>\d+)?", "L0.5 S", Progress(loss=0.5)),
        (r"(?P<epoch>\d)/(?P<epochs>\d+)", "3/30", Progress(epoch=3, epochs=30)),
        (r"(?P<rate>\S+) a second", "2.5 a second", Progress(rate=2.5)),
        (r"at (\d+)", "elsewhere", None),
        (r"at (\S+)", "at home", None),
        (r"at (\S+)", "at " + "9" * 2000, None),
        (r"at (\S+)", "at inf", None),
        (r"at (\S+)", "at -3", None),
    ],
)  # fmt: skip
def test_a_users_own_pattern(pattern: str, line: str, expected: Progress) -> None:
    """Groups are named as the fields, or are step and total; nonsense in them is no progress."""
    assert parser_for("regex", pattern)(line) == expected


def test_a_users_pattern_sees_a_bounded_line() -> None:
    """The line is cut before a user's own pattern may wander about in it."""
    assert parser_for("regex", r"(\d+)$")("x" * 2047 + "12345").step == 1


@pytest.mark.parametrize(
    ("parse", "pattern", "message"),
    [
        ("regex", None, "needs a pattern"),
        ("regex", "", "needs a pattern"),
        ("regex", "step (", "not a regular expression"),
        ("regex", "step", "has no group"),
        ("regex", r"(?P<stepp>\d+)", "'stepp'; the names are step, total"),
        ("auto", r"(\d+)", "only used with parse: regex"),
        ("yaml", None, "use auto, tqdm or regex"),
    ],
)
def test_unusable_requests_are_refused_in_words(
    parse: str, pattern: str | None, message: str
) -> None:
    """What cannot work is said when the job is read, not found out while it runs."""
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parser_for(parse, pattern)


def test_latest_gathers_the_newest_of_each_field() -> None:
    """Step and loss may stand on different lines; the newest of each is taken."""
    lines = ["step 1/10 loss 9", "loss 0.5", "step 2/10", "validating"]
    assert latest(AUTO, lines) == Progress(step=2, total=10, loss=0.5)
    assert latest(AUTO, ["nothing", "here"]) is None


def test_latest_does_not_mix_bars() -> None:
    """A step keeps its own total, also when it has none."""
    assert latest(AUTO, ["step 5/10", "iter 7"]) == Progress(step=7)


@pytest.mark.parametrize(
    ("partial", "step"),
    [(real_bar(130), 130), ("step 12", 120), ("", 120), (real_bar(130)[:-9], 120)],
)
def test_an_unfinished_line_counts_once_it_looks_whole(partial: str, step: int) -> None:
    """A bar without line end is read, but "step 12" may be on its way to "step 1200"."""
    assert latest(AUTO, ["step 120"], partial).step == step


def test_fraction_is_by_steps_or_epochs() -> None:
    """What the progress bar shows follows the finest count there is."""
    assert Progress(step=120, total=1000, epoch=1, epochs=2).fraction == 0.12
    assert Progress(epoch=1, epochs=2).fraction == 0.5
    assert Progress(step=120).fraction is None
    assert Progress(step=7, total=0).fraction is None
