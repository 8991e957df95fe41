"""The command `flowlm sample`: texts to standard output or a file, the rest to standard error."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from typing import TYPE_CHECKING, TextIO

from flowlm.checks import whole
from flowlm.cli import options
from flowlm.cli.given import Given, given
from flowlm.cli.lines import one_line
from flowlm.cli.parse import require_amounts, sampler, sampling_options
from flowlm.errors import Notice, Refusal
from flowlm.experiment import Experiment, settings_of
from flowlm.experiment.kinds import spelt as spelt_kind
from flowlm.files import new_file
from flowlm.machine.device import device_name
from flowlm.model.finding import experiment_of, find_model

if TYPE_CHECKING:
    from flowlm.model.language_model import LanguageModel
    from flowlm.sampling.sampler import Sampler

FPS = 0.1, 100.0
"""Frames a second of a film, the fewest and the most."""

SHORT = ("temperature", "top_p")
"""Settings of samplers that have an option of their own."""

Put = Callable[[int, Sequence[int]], None]
"""Writes the text of a number, from its tokens."""


def sample(words: Sequence[str]) -> int:
    """Write texts, or show them while they come into being."""
    chosen = sampling_options(options.Sample, "sample", words)
    _require_sound(chosen)
    if chosen.quiet:
        warnings.simplefilter("ignore", Notice)
    texts = given(chosen)
    place = find_model(chosen.run)
    way = _way(chosen, experiment_of(place))
    if chosen.guide is None and chosen.guidance is not None:
        raise Refusal("--guidance leads away from a weaker run: name it with --guide.")
    weaker = None if chosen.guide is None else find_model(chosen.guide)
    with ExitStack() as opened:
        # Refused before torch is imported; it gets its name when all texts are in it.
        file = None if chosen.out is None else opened.enter_context(new_file(chosen.out))
        import torch

        from flowlm.machine.hardware import keep_to_cores
        from flowlm.model.loading import load

        keep_to_cores()
        dtype = torch.bfloat16 if chosen.dtype == "bfloat16" else torch.float32
        model = load(place, chosen.device, dtype, chosen.tokenizer)
        said: dict[str, object] = {"sampler": settings_of(way)}
        if weaker is not None:
            weight = 2.0 if chosen.guidance is None else chosen.guidance
            weak = load(weaker, chosen.device, dtype, chosen.tokenizer)
            way = model.guided(by=weak, weight=weight, sampler=way)
            said |= {"guide": chosen.guide, "guidance": weight}
        _write(chosen, texts, model, way, said, file)
    return 0


def _write(
    chosen: options.Sample,
    texts: Given,
    model: LanguageModel,
    way: Sampler,
    said: Mapping[str, object],
    file: TextIO | None,
) -> None:
    """Write what is asked for, with headings and a bar on standard error."""
    from flowlm.cli import show
    from flowlm.cli.film import show_film

    asked = chosen.steps if way.counts_steps else chosen.steps[:1]
    prompt = texts.for_model(model, chosen.length)
    # Refused before anything is said; a batch is written when it is asked for.
    batches = [
        model.batches(
            texts.num, steps, chosen.seed, prompt, most=chosen.batch, sampler=way,
            length=chosen.length,
        )
        for steps in asked
    ]  # fmt: skip
    paper, notes = show.console(), show.console(stderr=True, quiet=chosen.quiet)
    if not way.counts_steps:
        notes.print(show.one_way(model.experiment.method, way, model.length), soft_wrap=True)
    elsewhere = not (chosen.film or (file is None and paper.is_terminal))
    with show.bar_of_texts(notes, shown=elsewhere) as bar:
        task = bar.add_task("", total=texts.num * len(asked))
        for steps, of_steps in zip(asked, batches, strict=True):
            notes.rule(show.heading(way, steps, model.length))
            if chosen.film:
                film = model.film(texts.num, steps, chosen.seed, prompt=prompt, sampler=way)
                show_film(paper, film, model.tokenizer, chosen.fps)
                continue
            facts = {
                "steps": steps if way.counts_steps else None,
                "evaluations": way.evaluations(steps, model.length),
            }
            put = _form(chosen, model, {**facts, **said}, file)
            for number, row in enumerate(row for batch in of_steps for row in batch.tolist()):
                put(number, row)
                bar.advance(task)


def _form(
    chosen: options.Sample, model: LanguageModel, facts: Mapping[str, object], file: TextIO | None
) -> Put:
    """How a text is written: as JSON, as a line, or on a terminal as it is, below its number."""
    from flowlm.cli import show
    from flowlm.cli.film import spelt

    console, place = show.console(), sys.stdout if file is None else file

    def put(number: int, row: Sequence[int]) -> None:
        text = spelt(row, model.tokenizer)
        if chosen.json:
            own = {"text": None if model.tokenizer is None else text, "tokens": row}
            line = json.dumps({**own, "seed": chosen.seed, "number": number, **facts})
        elif file is None and console.is_terminal:
            console.rule(f"{number}", align="left", style="dim")
            line = text
        else:
            line = one_line(text)
        print(line, file=place, flush=True)

    return put


def _require_sound(chosen: options.Sample) -> None:
    """Refuse numbers that are none, and options that contradict each other."""
    require_amounts(chosen.num, chosen.steps, chosen.seed)
    device_name(chosen.device)
    if chosen.batch is not None:
        whole("--batch", chosen.batch, 1)
    if not FPS[0] <= chosen.fps <= FPS[1]:
        raise Refusal(f"--fps must lie between {FPS[0]} and {FPS[1]:g}, not {chosen.fps}.")
    if chosen.film and (chosen.json or chosen.out is not None or chosen.batch is not None):
        raise Refusal(
            "--film shows all texts at once, on standard output: leave --json, --out and --batch "
            "out."
        )


def _way(chosen: options.Sample, model: Experiment) -> Sampler:
    """The sampler that is chosen, with the settings that have options of their own."""
    way = sampler(chosen, "sample", model)
    stated = {word.partition("=")[0].replace("_", "-") for word in chosen.settings}
    for name, value in zip(SHORT, (chosen.temperature, chosen.top_p), strict=True):
        option = name.replace("_", "-")
        if value is None:
            continue
        if name not in {field.name for field in fields(way)}:  # pyright: ignore[reportArgumentType]
            raise Refusal(
                f"The sampler {spelt_kind(type(way).__name__)} has no {option}: leave --{option} "
                "out, or write with another --sampler."
            )
        if f"--sampler.{option}" in stated:
            raise Refusal(f"--{option} is short for --sampler.{option}: give one of the two.")
        way = replace(way, **{name: value})  # pyright: ignore[reportArgumentType]
    return way
