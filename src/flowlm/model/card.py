"""The model card: what a page on the hub says, from a model and the report of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowlm.evaluate.held_out import in_words
from flowlm.evaluate.measures import present
from flowlm.experiment import Experiment, Text
from flowlm.model.front_matter import front_matter

TEXTS = 3
"""Samples that a card shows."""


def model_card(
    experiment: Experiment,
    parameters: int,
    vocab: int,
    length: int,
    hub_id: str,
    report: Mapping[str, Any] | None,
    license: str | None = None,
) -> str:
    """Markdown with the hub's header. Figures are those of `report` (a report.json), or none."""
    method, name = experiment.method, hub_id.partition("/")[2]
    steps = f", steps={method.usual_steps}" if experiment.sampler.counts_steps else ""
    parts = [
        front_matter(name, experiment, license, report),
        f"# {name}",
        method.about,
        f"{parameters:,} parameters, a vocabulary of {vocab:,} tokens, texts of {length:,} tokens.",
        "## Use it",
        "```\npip install 'flowlm[hub]'\n```",
        "```python\nimport flowlm\n\n"
        f'model = flowlm.load("{hub_id}")\n'
        f'print(*model.generate(4{steps}, seed=0), sep="\\n")\n```',
        "## Measured",
        *(_measured(report) if report else ["It has not been evaluated: figures are missing."]),
        "## Training",
        _training(experiment),
    ]
    return "\n\n".join(parts) + "\n"


def _measured(report: Mapping[str, Any]) -> list[str]:
    rows = report["rows"]
    known = present(rows, brief=True)
    lines = [
        "| " + " | ".join(["steps", *(f"{m.heading} ({m.unit})" for m in known)]) + " |",
        "|" + "---:|" * (1 + len(known)),
    ]
    for row in rows:
        cells = [str(row["steps"]), *(m.plain(row.get(m.key)) for m in known)]
        lines.append("| " + " | ".join(cells) + " |")
    counts = {row.get("samples") for row in rows} - {None}
    facts = report.get("facts") or {}
    # Paths of a machine are nobody else's.
    said = ", ".join(f"{k} {v}" for k, v in facts.items() if k not in ("data", "command"))
    texts = f", {min(counts):,} texts a row" if counts else ""
    remarks = [f"By `flowlm evaluate` ({said}{texts})."]
    if any(m.key == "nll" for m in known) and report.get("judge"):
        remarks.append(f"NLL is under {report['judge']}.")
    remarks.append(
        "Read quality together with sample entropy: repeating a few frequent words scores well too."
    )
    parts = ["\n".join(lines), " ".join(remarks)]
    parts += [in_words(row) + "." for row in report.get("held_out") or []]
    for title, texts in (report.get("samples") or {}).items():
        quoted = "\n\n".join(_quoted(sample["text"]) for sample in texts[:TEXTS])
        parts.append(f"{title}:\n\n{quoted}")
    return parts


def _quoted(text: str) -> str:
    """An indented block, in which no character of a text means anything."""
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])


def _training(experiment: Experiment) -> str:
    if experiment.name.startswith("released-"):
        return "Converted from an officially released checkpoint, with its averaged weights."
    plan = experiment.train
    data = experiment.data
    if isinstance(data, Text):
        text = f"`{data.path}`" if data.path else "text"
    else:
        text = f"generated {data.about}"
    if experiment.init is not None:
        text += f", from the weights of `{experiment.init}`"
    return (
        f"Recipe `{experiment.name}` on {text}: {plan.steps:,} steps of {plan.batch:,} texts, "
        f"learning rate {plan.lr:g}, averaged weights, seed {plan.seed}. experiment.json holds "
        "every other setting."
    )
