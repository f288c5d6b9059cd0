"""One of several processes that train together: what test_train_ranks.py starts.

    python -m tests.process.train_ranks FOLDER

Owns what they do: train undisturbed, then train with cuts, and write down what was not the same.
Invariant: every rank does the same calls in the same order.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tests.unit.train.nets import Cut, Cutter, Diary, differences, from_bytes, pieces, trainer_of
from workers.train.hooks import Hook
from workers.train.loop import Trainer
from workers.train.plan import Plan
from workers.train.ranks import Ranks

CUTS = (3, 4, 7)
STOP_ASKED = 5


class Asker(Hook):
    """Asks for a stop, in every rank at another step: the main rank's counts."""

    def after_step(self, trainer: Trainer) -> None:
        """Ask."""
        if trainer.step == STOP_ASKED + 2 * trainer.ranks.rank:
            trainer.ask("stop")


def main(folder: Path) -> None:
    """Train in all the ways, and leave what was found in the folder."""
    torch.set_num_threads(1)
    ranks = Ranks.of_environment()
    ranks.start(torch.device("cpu"))
    plan = Plan.of({"epochs": 5, "seed": 3, "accumulate": 2, "loader": {"workers": 1}})
    diary = Diary()
    trainer = trainer_of(plan, pieces, [diary], ranks)
    trainer.train()
    wanted = trainer.state()
    seen, found = cut(plan, ranks, folder)
    asked = trainer_of(plan, pieces, [Asker()], ranks)
    outcome = asked.train()
    report = {
        "indices": {step: noted[0] for step, noted in diary.steps.items()},
        "losses": [noted[1]["loss"] for noted in diary.steps.values()],
        "steps_differ": [step for step in diary.steps if diary.steps[step] != seen.get(step)],
        "states_differ": [] if wanted is None else differences(found, wanted),
        "has_state": wanted is not None,
        "stopped": [outcome.word, outcome.step, outcome.exit_code],
    }
    (folder / f"{ranks.rank}.json").write_text(json.dumps(report))
    ranks.close()


def cut(plan: Plan, ranks: Ranks, folder: Path) -> tuple[dict[int, Any], dict[str, Any] | None]:
    """Train with cuts, each time from the state that the main rank left in the folder."""
    seen: dict[int, Any] = {}
    for number, step in enumerate((*CUTS, 0)):
        diary, cutter = Diary(), Cutter(step)
        trainer = trainer_of(plan, pieces, [diary, cutter], ranks)
        if number:
            trainer.load(from_bytes((folder / f"{number - 1}.pt").read_bytes()))
        try:
            trainer.train()
        except Cut:
            if cutter.saved is not None:
                (folder / f"{number}.pt").write_bytes(cutter.saved)
        ranks.gather(None)  # the others wait until it is there, and then some more
        ranks.agree(0)
        ranks.agree(0)
        seen |= diary.steps
    return seen, trainer.state()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
