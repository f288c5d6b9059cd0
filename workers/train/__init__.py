"""The built-in trainer: training that another process can take up bit for bit.

    from workers.train import Pieces, run

    def build(width=32):
        ...
        return Pieces(model=model, loss=loss, optimizer=make_optimizer, data=dataset)

    if __name__ == "__main__":
        sys.exit(run(build, args={"width": 64}, out="out", epochs=45).exit_code)

Owns nothing but the names that a user's code needs; each concern is a module beside this one. Needs
torch, nothing else. Invariant: no module of this package touches a GPU when it is imported.
"""

import sys

try:
    from workers.train.errors import TrainingError
    from workers.train.hooks import Hook, Outcome
    from workers.train.loop import Trainer
    from workers.train.pieces import Pieces
    from workers.train.plan import Plan
    from workers.train.worker import run
except ModuleNotFoundError as missing:
    if missing.name != "torch":
        raise
    raise ModuleNotFoundError(
        f"the built-in trainer needs torch where the job runs, and it is missing: "
        f"{sys.executable} -m pip install torch",
        name=missing.name,
    ) from None

__all__ = ["Hook", "Outcome", "Pieces", "Plan", "Trainer", "TrainingError", "run"]
