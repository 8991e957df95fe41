"""Prompts, templates and windows: where given tokens stand, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

import flowlm
from flowlm.core.types import FREE
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.methods.flow import Flow
from flowlm.model.language_model import LanguageModel
from flowlm.model.prompts import Gap, Page, parsed
from flowlm.model.windows import Windows
from flowlm.nn import Size
from flowlm.sampling import Euler

CHARACTERS = Tokenizer.characters(["abcdefgh [.]"])
PAIRS = Tokenizer.bpe(["the cat sat on the mat and the cat sat"] * 20, 300)
SIZE = Size(1, 16, 2, 8, 0.0, None, None)


@pytest.fixture(scope="module")
def demo() -> LanguageModel:
    return flowlm.load("demo")


def small(data: Text, tokenizer: Tokenizer | None = CHARACTERS) -> LanguageModel:
    torch.manual_seed(0)
    network = Flow().network(SIZE, 15 if tokenizer is None else tokenizer.vocab, data.length)
    torch.nn.init.normal_(network.head.weight)
    return LanguageModel(
        Experiment("small", Flow(), Euler(), data, SIZE), network, tokenizer, data.length
    )


# --- templates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("a [..3] b[..]", ["a ", Gap(3), " b", Gap(None)]),
        ("[..][..12]", [Gap(None), Gap(12)]),
        ("a[[..]b", ["a[..]b"]),
        ("[[..3][..3]", ["[..3]", Gap(3)]),
        ("[[[..]", ["[[..]"]),
        ("a [.. b] [.]", None),
        ("[..-1]", None),
        ("[..0]", None),
        ("[..1234567890]", None),
        ("[..", None),
    ],
)
def test_a_template_is_text_and_gaps(template: str, parts: list | None) -> None:
    if parts is None:
        with pytest.raises(Refusal, match="no gap: write"):
            parsed(template, "The template")
    else:
        assert parsed(template, "The template") == parts


@pytest.mark.parametrize(
    ("template", "row"),
    [
        ("ab[..]", "ab______"),
        ("[..]h", "_______h"),
        ("a[..]b[..]c", "a___b__c"),  # five to share: the first has one more
        ("[..2]a[..]b[..3]", "__a_b___"),
        ("a[..7]", "a_______"),
        ("a [..] b", "a ____ b"),  # a space is a token of its own here
        ("[[..][..]", "[..]____"),
    ],
)
def test_gaps_have_what_they_state_and_share_the_rest(template: str, row: str) -> None:
    tokens = small(Text(length=8)).template(template)
    written = [0 if c == "_" else CHARACTERS.encode(c)[0] for c in row]
    known = torch.tensor([c != "_" for c in row])
    assert torch.equal(tokens[0], torch.tensor(written).where(known, FREE))


def test_a_space_before_a_gap_comes_with_the_token_after_it() -> None:
    """Where tokens begin with their space; behind a gap, a word keeps its own."""
    assert PAIRS.joins_spaces
    assert not CHARACTERS.joins_spaces
    assert not Tokenizer.words(["a", "b"]).joins_spaces
    page = Page(PAIRS, 12)
    cat, mat = PAIRS.encode("the cat"), PAIRS.encode(" mat")
    row = page.filled("the cat [..2] mat[..]", "It")
    assert row == [*cat, FREE, FREE, *mat, *[FREE] * (10 - len(cat) - len(mat))]
    assert page.context("the cat ", "It") == page.context("the cat", "It")
    assert page.filled("[..]the cat ", "It")[-len(cat) - 1 :] == PAIRS.encode("the cat ")
    assert page.context("the cat  ", "It")[: len(cat) + 1] == PAIRS.encode("the cat ")


def test_a_special_token_at_the_beginning_is_given_with_the_text() -> None:
    tokenizer = CHARACTERS
    data = Text(length=8, begin="<|end|>", end="<|end|>")
    tokens = small(data, tokenizer).template(["ab[..]", "[..]h"])
    a, b, h = tokenizer.encode("abh")
    assert tokens.tolist() == [
        [0, a, b, FREE, FREE, FREE, FREE, FREE], [0, FREE, FREE, FREE, FREE, FREE, h, FREE],
    ]  # fmt: skip
    text = small(data, tokenizer).sample(1, steps=2, prompt="ab", length=20)
    assert text[0, :3].tolist() == [0, a, b]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda m: m.infill("these old"), "no gap"),
        (lambda m: m.infill("these [..3] old"), "comes to 5 tokens"),
        (lambda m: m.infill("these " * 18 + "[..]"), "its gap .* needs a token"),
        (lambda m: m.infill("these " * 19 + "[..]"), "shorten it"),
        (lambda m: m.infill("these [..40]"), "shorten it"),
        (lambda m: m.infill("these zebras [..]"), "'zebras'"),
        (lambda m: m.infill(["these [..]", "[..] no"]), "Template 1 has 'no'"),
        (lambda m: m.infill(["these [..]"], n=2), "1 prompt"),
        (lambda m: m.infill([]), "empty"),
        (lambda m: m.generate(prompt=""), "prompt is empty"),
        (lambda m: m.generate(prompt="  "), "prompt is empty"),
        (lambda m: m.generate(prompt=["these", ""]), "Prompt 1 is empty"),
        (lambda m: m.generate(prompt=[]), "list of prompts is empty"),
        (lambda m: m.generate(prompt="these " * 18), "18 tokens"),
        (lambda m: m.generate(prompt="these " * 30, length=30), "30 tokens"),
        (lambda m: m.generate(3, prompt=["these"]), "give one for each"),
        (lambda m: m.generate(), "how many"),
        (lambda m: m.generate(1, length=0), "length in tokens"),
        (lambda m: m.sample(1, length=10**9), "length in tokens"),
        (lambda m: m.decode(m.template("these [..]")), "outside 0 to 60"),
        (lambda m: m.encode("zebra"), "'zebra'"),
        (lambda m: small(Text(length=8)).sample(prompt="aé"), "'aé'"),
        (lambda m: small(Text(length=8), None).sample(prompt="a"), "no tokenizer"),
        (lambda m: small(Text(length=8, begin="x"), None).sample(1, length=9), "no tokenizer"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused(
    ask: Callable[[LanguageModel], object], said: str, demo: LanguageModel
) -> None:
    with pytest.raises(Refusal, match=said):
        ask(demo)


def test_prompts_are_text_for_all_or_for_each_or_tokens(demo: LanguageModel) -> None:
    ids = demo.encode("these old sailors")
    tokens = torch.full((3, 18), FREE)
    tokens[:, :3] = ids
    by_tokens = demo.sample(3, steps=2, seed=5, prompt=tokens)
    assert torch.equal(by_tokens, demo.sample(3, steps=2, seed=5, prompt="these old sailors"))
    each = demo.sample(steps=2, seed=5, prompt=["these old sailors"] * 3)
    assert torch.equal(by_tokens, each)
    assert torch.equal(by_tokens, demo.sample(steps=2, seed=5, prompt=tokens))
    *_, film = demo.film(3, 2, seed=5, prompt="these old sailors")
    assert torch.equal(by_tokens, film.tokens())
    assert demo.generate(steps=2, seed=5, prompt=tokens) == demo.decode(by_tokens)


# --- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [(None, None), (90, None), (90, 91)])
@pytest.mark.parametrize("known", [0, 1, 6, 13, 24])
def test_windows_begin_with_the_half_that_stands(ends: tuple, known: int) -> None:
    """Every token is written once, by a window that sees at least half of its room before it."""
    windows, asked = Windows(8, *ends), list[tuple[int, list[int]]]()

    def write(window: torch.Tensor, number: int) -> torch.Tensor:
        asked.append((number, window[0].tolist()))
        new = 1000 * (1 + number) + torch.arange(8).expand(window.shape)
        return window.where(window != FREE, new)

    given = torch.full((2, 25), FREE)
    given[:, :known] = torch.arange(known)
    text = windows.fill(given, write)
    assert (text != FREE).all()
    assert torch.equal(text[:, :known], given[:, :known])
    assert not (text == 91).any()
    for number, window in asked:
        inner = window[ends[0] is not None :][: windows.room]
        standing = [id for id in inner if id != FREE]
        assert inner[: len(standing)] == standing
        if number:
            assert window[0] == ends[0] or ends[0] is None
            assert windows.room // 2 <= len(standing) < windows.room
            start = text[0].tolist().index(standing[0])
            assert text[0, start : start + len(standing)].tolist() == standing
    # A window that the prompt fills is not written: the last tokens count.
    behind = known + 1 - windows.room - (ends[0] is not None)
    assert asked[0][0] == max(0, -(-behind // windows.stride))


def test_a_longer_text_begins_with_the_shorter(demo: LanguageModel) -> None:
    whole = demo.sample(3, steps=2, seed=3, length=50)
    assert whole.shape == (3, 50)
    for length in (1, 17, 18, 19, 31):
        assert torch.equal(demo.sample(3, steps=2, seed=3, length=length), whole[:, :length])
    assert torch.equal(demo.sample(3, steps=2, seed=3), whole[:, :18])


def test_the_window_after_the_seam_is_the_model_s_own(demo: LanguageModel) -> None:
    """Its context is the last half of the text, and nothing else."""
    whole = demo.sample(2, steps=2, length=27)
    prompt = torch.full((2, 18), FREE)
    prompt[:, :9] = whole[:, 9:18]
    windows = Windows(18)
    written: list[torch.Tensor] = []

    def remember(window: torch.Tensor, number: int) -> torch.Tensor:
        written.append(window)
        return window.where(window != FREE, 0)

    windows.fill(torch.cat([whole[:, :18], torch.full((2, 9), FREE)], 1), remember)
    assert len(written) == 1
    assert torch.equal(written[0], prompt)


def test_long_texts_do_not_depend_on_their_batch(demo: LanguageModel) -> None:
    prompts = ["these old", "this " * 30, "these " * 9]
    whole = demo.sample(steps=2, seed=4, prompt=prompts, length=45)
    split = demo.sample(steps=2, seed=4, prompt=prompts, length=45, memory=0)
    assert torch.equal(whole, split)
    again = demo.sample(steps=2, seed=4, prompt=prompts[:1], length=45)
    assert torch.equal(again, whole[:1])
    this, these = demo.encode("this these")[0].tolist()
    assert whole[1, :30].tolist() == [this] * 30
    assert whole[2, :9].tolist() == [these] * 9
    other = demo.sample(steps=2, seed=5, prompt=prompts, length=45)
    assert not torch.equal(other[:, 36:], whole[:, 36:])


def test_a_template_may_be_longer_than_the_network(demo: LanguageModel) -> None:
    (text,) = demo.infill("these old [..] rope these [..4]", steps=2, length=40)
    words = text.split()
    assert len(words) == 40
    assert words[:2] == ["these", "old"]
    assert words[34:36] == ["rope", "these"]


def lines(model: LanguageModel, prompts: Sequence[str]) -> list[str]:
    return model.generate(steps=2, prompt=list(prompts))


def test_the_place_in_the_list_is_the_number_of_the_text(demo: LanguageModel) -> None:
    one, two = lines(demo, ["these old", "these old"])
    assert one != two
    assert lines(demo, ["these old"]) == [one]
