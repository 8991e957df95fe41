"""Whether a run fits into memory, asked before anything is allocated."""

from __future__ import annotations

from flowlm.errors import Refusal
from flowlm.experiment import Experiment
from flowlm.machine.limits import memory

GIB = 2**30


def least_batch(experiment: Experiment, processes: int = 1) -> int:
    """Bytes that a process's part of a batch takes at least: tokens and their weights."""
    return experiment.train.batch // processes * experiment.data.length * (8 + 4)


def least_state(experiment: Experiment, vocab: int) -> int:
    """Bytes that weights, gradients, moments and average take at least, of a whole copy."""
    size = experiment.size
    # Of a frozen token table there are weights and average alone.
    return 20 * size.width * (12 * size.blocks * size.width + vocab) + 8 * vocab * size.width


def least_kept(experiment: Experiment, length: int, processes: int = 1) -> int:
    """Bytes that a pass keeps for going back at least: what every block reads."""
    plan, size = experiment.train, experiment.size
    own = plan.batch // processes
    number = 2 if plan.precision == "bfloat16" else 4
    return min(own, plan.micro_batch or own) * length * size.blocks * size.width * number


def require_batch(experiment: Experiment, processes: int = 1) -> None:
    """Refuse a batch that no machine of this memory can hold, whatever it computes on."""
    there, wanted = memory(), least_batch(experiment, processes)
    if there is not None and wanted > there:
        raise Refusal(
            f"--train.batch {experiment.train.batch:,} takes {_gib(wanted)} for its tokens alone, "
            f"and there are {_gib(there)} of memory: choose a smaller one."
        )


def require_step(experiment: Experiment, state: int, kept: int, there: int) -> None:
    """Refuse a step of which state and activations take more bytes than `there` are."""
    if state + kept <= there:
        return
    plan = experiment.train
    if state > there:
        advice = "choose a smaller --size.width or --size.blocks, or more processes"
    elif plan.recompute:
        advice = "choose a smaller --train.micro-batch"
    else:
        advice = "choose a smaller --train.micro-batch, or give --train.recompute"
    texts = f"{plan.micro_batch or plan.batch:,} texts at once"
    raise Refusal(
        f"A step with {texts} takes at least {_gib(state + kept)} ({_gib(state)} of it for "
        f"weights, gradients, optimizer and average), and there are {_gib(there)}: {advice}."
    )


def _gib(count: int) -> str:
    return f"{count / GIB:,.1f} GiB"
