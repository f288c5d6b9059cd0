"""Which class a map is for, and what it is called.

Owns the meaning of `target` and the file of labels. Never sees an image. Invariant: the class it
chooses is one that the model has.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workers.gradcam.callables import is_callable_name, load_callable
from workers.gradcam.errors import BadConfig, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Target:
    """Chooses a class from the scores of one image."""

    def __init__(self, target: int | str | None, labels: str | None) -> None:
        self.labels = read_labels(Path(labels)) if labels is not None else []
        self.index: int | None = None
        self.choice: Callable[[Tensor, str], int] | None = None
        if isinstance(target, str):
            if target in self.labels:
                self.index = self.labels.index(target)
            elif is_callable_name(target):
                self.choice = load_callable("gradcam.target", target)
            else:
                raise BadConfig(f"gradcam.target: {self._unknown(target)}")
        else:
            self.index = target

    def choose(self, logits: Tensor, path: str) -> int:
        """Return the index of a class; `logits` has shape (classes,)."""
        if self.choice is not None:
            index = int(self.choice(logits, path))
        else:
            index = int(logits.argmax()) if self.index is None else self.index
        if not 0 <= index < len(logits):
            raise BadConfig(
                f"gradcam.target: there is no class {index}, the model has 0 to {len(logits) - 1}"
            )
        return index

    def label(self, index: int) -> str | None:
        """Return what a class is called, if the labels say so."""
        return self.labels[index] if index < len(self.labels) else None

    def _unknown(self, target: str) -> str:
        if not self.labels:
            return f"{target!r} is a label: give the file with all of them as labels"
        return f"no label {target!r}; {suggestion(target, self.labels)}"


def read_labels(path: Path) -> list[str]:
    """Return the labels of a file: one a line, the first is class 0."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"gradcam.labels: cannot read {path}: {error}") from error
    return [line.strip() for line in lines]
