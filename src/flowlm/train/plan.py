"""How to train. Torch-free, because the command line reads it for its help."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from flowlm.checks import require_fields, whole
from flowlm.errors import Refusal


@dataclass(frozen=True)
class Plan:
    """Steps, optimizer and cadence; the optimizer's defaults are the paper's."""

    steps: int = 10_000
    """Optimizer steps."""
    batch: int = 512
    """Texts per step, of all processes together."""
    micro_batch: int = 0
    """Texts per process and pass, at most: gradients of several passes add up to a step; 0 takes
    one pass."""
    shard: int = 0
    """Processes that share one copy of weights and optimizer (torchrun); 0 for all of them."""
    lr: float = 3e-4
    """Learning rate of AdamW after warm-up."""
    warmup: int = 2_500
    """Steps over which the learning rate rises from zero."""
    decay: float = 0.0
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    beta2: float = 0.999
    """Second-moment decay of AdamW (the first is 0.9)."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW, on matrices."""
    clip: float = 1.0
    """Largest global gradient norm."""
    ema: float = 0.9999
    """Decay of the average of the weights, min(decay, (1 + n) / (10 + n)) at step n."""
    seed: int = 0
    """Names every random number of the run."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    validate_every: int = 500
    """Steps between validations."""
    save_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """How many checkpoints to keep."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto takes an accelerator if there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products (autocast); weights and losses stay in float32."""
    compile: bool = False
    """Compile every block, and the work between the head's matrix products (needs a C++ compiler
    or, on CUDA, Triton)."""
    recompute: bool = False
    """Keep one tensor a block instead of all its activations, and run it again going back."""
    threads: int = 0
    """CPU threads; 0 takes one for small models and all cores for large ones."""
    track: Literal["trackio", "wandb", "tensorboard"] | None = None
    """Where figures and sample texts go besides metrics.jsonl and samples/ (the extra `track`)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--train.")
        for name, count in (
            ("steps", self.steps),
            ("batch", self.batch),
            ("log-every", self.log_every),
            ("validate-every", self.validate_every),
            ("save-every", self.save_every),
            ("keep", self.keep),
        ):
            whole(f"--train.{name}", count, 1)
        for name, count in (
            ("warmup", self.warmup), ("threads", self.threads),
            ("micro-batch", self.micro_batch), ("shard", self.shard),
        ):  # fmt: skip
            whole(f"--train.{name}", count, 0)
        whole("--train.seed", self.seed, 0, 2**32 - 1)
        for name, share in (("decay", self.decay), ("ema", self.ema), ("beta2", self.beta2)):
            if not 0 <= share <= 1 or (name == "beta2" and share == 1):
                raise Refusal(f"--train.{name} must lie between 0 and 1, not {share}.")
        if not 0 <= self.weight_decay < math.inf:
            raise Refusal(
                f"--train.weight-decay must be finite and not negative, not {self.weight_decay}."
            )
        for name, number in (("lr", self.lr), ("clip", self.clip)):
            if not 0 < number < math.inf:
                raise Refusal(f"--train.{name} must be positive, not {number}.")

    def due(self, step: int, every: int) -> bool:
        """Whether what is done every so many steps is due after this one; all is after the last."""
        return step == self.steps or step % every == 0
