"""What is known of frameworks' checkpoints: one entry per framework, in the words of job.yaml.

Data alone; complete.py merges it below the user's own keys.
`example` is a checkpoint's name, for messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from workers import protocol

SESSION: Final = "session"
MANIFEST: Final = "manifest.json"  # of a checkpoint that was published whole
PUBLISHED: Final = "step-*"  # how those are named


@dataclass(frozen=True, slots=True)
class Preset:
    """Keys for the sections `checkpoint` and `resume`."""

    checkpoint: Mapping[str, object]
    resume: Mapping[str, object]
    example: str
    about: str = field(default="")


PRESETS: Mapping[str, Preset] = {
    "hf": Preset(
        checkpoint={
            "glob": "checkpoint-*",
            "step": r"checkpoint-(\d+)$",
            # trainer_state.json is written last; the weights are .safetensors or .bin, whole or in
            # shards; without optimizer and scheduler the Trainer resumes with fresh ones, silently.
            "require": [
                "trainer_state.json",
                "*model*.[bs]*",
                "optimizer.pt",
                "scheduler.pt",
                "rng_state*",
            ],
            "forbid": ["checkpoint-is-incomplete.txt"],
        },
        resume={"mode": "append", "argv": ["--resume_from_checkpoint", "{path}"]},
        example="checkpoint-1200",
        about="Hugging Face Trainer; the script must hand --resume_from_checkpoint to train()",
    ),
    "detectron2": Preset(
        checkpoint={
            "glob": "model_[0-9]*.pth",
            "step": r"model_(\d+)\.pth$",
            "pointer": "last_checkpoint",
        },
        resume={"mode": "inplace", "argv": ["--resume"]},
        example="model_0001199.pth",
        about="Detectron2's DefaultTrainer, which follows last_checkpoint",
    ),
    "mmengine": Preset(
        checkpoint={
            "glob": "[ei]*_[0-9]*.pth",
            "step": r"(?:^|/)(?:epoch|iter)_(\d+)\.pth$",
            "pointer": "last_checkpoint",
        },
        resume={
            "mode": "inplace",
            "argv": ["--resume"],
            # Its checkpoints hold objects that torch >= 2.6 refuses to load otherwise.
            "env": {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        },
        example="iter_1200.pth",
        about="MMEngine's Runner, which follows last_checkpoint",
    ),
    "cornernet": Preset(
        checkpoint={"glob": "*_[0-9]*.pkl", "step": r"_(\d+)\.pkl$"},
        resume={"mode": "append", "argv": ["--iter", "{step}"]},
        example="CornerNet_1200.pkl",
        about="CornerNet and its descendants",
    ),
    "dcp": Preset(
        checkpoint={"glob": "step-*", "step": r"step-(\d+)$", "require": [".metadata"]},
        resume={"mode": "inplace"},
        example="step-1200",
        about="torch.distributed.checkpoint as torchtitan writes it; the script finds its latest",
    ),
    SESSION: Preset(
        checkpoint={
            "glob": PUBLISHED,
            "step": r"step-(\d+)$",
            # Written last; it names every file, with its size and checksum.
            "require": [MANIFEST],
        },
        resume={"mode": "env", "env": {protocol.ENV_RESUME_PATH: "{path}"}},
        example="step-000001200",
        about="workers.session.publish, in the job's own script or in the built-in trainer",
    ),
}
