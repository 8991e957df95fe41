"""Churn, temperatures of rows, guidance, look-ahead, refinement and editing: what is exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from exact import counted, joint, product_of_marginals, variation
from torch import Tensor

import flowlm
from flowlm import chunked, core, nn
from flowlm.core import Decoding, Dense, Language, OneHot, Streams
from flowlm.errors import Refusal
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.guides import with_dropout
from flowlm.methods.input import BayesInput
from flowlm.model.editing import between, noise_of, vary, write_from
from flowlm.model.language_model import LanguageModel
from flowlm.sampling import (
    Bridge,
    Denoiser,
    Euler,
    GuidedSampler,
    Jumps,
    LeftToRight,
    LookAhead,
    Refine,
)

SIZE = nn.Size(2, 16, 2, 8, dropout=0.0, attention_cap=None, output_cap=None, positions="learned")


def exact(language: Language) -> Denoiser:
    clock = Decoding(language.vocab)
    return Denoiser(lambda x, s, t: language.denoiser(x, clock.t(s)), OneHot(language.vocab), clock)


def written(denoiser: Denoiser, sampler: object, steps: int, count: int, seed: int = 0) -> Tensor:
    prompt = torch.full((count, 3), core.FREE)
    *_, last = sampler.frames(denoiser, prompt, steps, Streams.of(seed, count=count))
    return last.tokens()


@pytest.fixture(scope="module")
def demo() -> LanguageModel:
    return flowlm.load("demo")


# --- how much noise is new ------------------------------------------------------------------------


def test_a_bridge_without_churn_is_the_jump(agreement: Language) -> None:
    denoiser, prompt = exact(agreement), torch.full((5, 3), core.FREE)
    flow, bridge, own, double = (
        [frame.x for frame in way.frames(denoiser, prompt, 4, Streams.of(1, count=5))]
        for way in (Euler(), Bridge("mean", churn=0.0), Bridge("mean"), Bridge("mean", churn=2.0))
    )
    for a, b in zip(flow, bridge):
        assert torch.allclose(a, b, atol=1e-5)
    # From noise all of it is new at any churn above 0; later the old share is kappa^churn.
    assert torch.equal(own[1], double[1])
    assert not torch.equal(own[2], double[2])
    assert (
        Bridge(churn=2.0).nll(denoiser, torch.zeros(1, 3).long(), 2, Streams.of(0, count=1)) is None
    )


def test_by_default_new_noise_follows_the_length_of_a_step() -> None:
    t = torch.tensor([[0.0], [0.3], [0.3]])
    s = torch.tensor([[0.2], [0.9], [0.301]])
    new, all_of_it, little = Jumps().kept(t, s)[:, 0].tolist()
    assert new == 0
    assert all_of_it < 1e-6
    assert 0.9 < little < 1


def test_renewing_all_noise_cools_an_exact_flow_in_many_steps(agreement: Language) -> None:
    """And the default does not: so it is no constant gamma."""
    n, denoiser, wanted = 4000, exact(agreement), joint(agreement)
    off = {
        sampler: variation(counted(written(denoiser, sampler, 48, n), 4) / n, wanted)
        for sampler in (Jumps(gamma=1.0), Jumps())
    }
    noise = float((wanted * (1 - wanted) / n).sqrt().sum() / 2)
    assert off[Jumps()] < 3 * noise
    assert off[Jumps(gamma=1.0)] > off[Jumps()]


# --- temperature ----------------------------------------------------------------------------------


def test_whole_rows_are_cooled_with_their_evidence() -> None:
    draw = Streams.of(2, count=2)
    features, weight = draw.normal(3, 4), torch.randn(9, 4, generator=torch.Generator())
    point = chunked.LazyOneHot(9).noise(draw, 3)
    evidence = chunked.Evidence(point, torch.full((2, 1), 1.5))
    warm = chunked.HeadPrediction(features, weight, torch.zeros(9), evidence=evidence)
    rows = chunked.cooled_rows(warm, 0.5)
    dense = Dense(warm.log_probs()).with_temperature(0.5).logp
    assert torch.allclose(rows.log_probs(), dense, atol=1e-5)
    context = warm.with_temperature(0.5).log_probs()
    assert not torch.allclose(context, dense, atol=0.1)
    by_hand = (features @ weight.T / 0.5 + 1.5 * point.dense()).log_softmax(-1)
    assert torch.allclose(context, by_hand, atol=1e-5)
    cold = chunked.cooled_rows(warm, 1e-3)
    assert torch.equal(cold.argmax(), warm.argmax())
    assert torch.allclose(cold.log_probs().exp().amax(-1), torch.ones(2, 3), atol=1e-3)
    assert chunked.cooled_rows(warm, 1.0) is warm
    both = chunked.Guided(warm, chunked.cooled_rows(warm, 2.0), 1.5)
    assert torch.allclose(
        chunked.cooled_rows(both, 0.5).log_probs(),
        Dense(both.log_probs()).with_temperature(0.5).logp,
        atol=1e-5,
    )


# --- guidance -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [-0.5, 0.3, 2.0, 50.0])
@pytest.mark.parametrize("cap", [None, 5.0])
def test_two_heads_are_combined_as_their_rows_are(
    weight: float, cap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowlm.chunked.points.chunk_numel", lambda kind: 40)  # several strips
    strong, weak = (
        chunked.HeadPrediction(
            Streams.of(seed, count=3).normal(5, 4), torch.randn(9, 4), torch.randn(9), cap
        )
        for seed in (0, 1)
    )
    found = chunked.guided(strong, weak, weight)
    logs = weight * strong.log_probs() + (1 - weight) * weak.log_probs()
    dense = Dense(logs.log_softmax(-1))
    tokens = torch.randint(9, (3, 5))
    assert torch.allclose(found.log_probs(), dense.logp, atol=1e-4)
    assert torch.allclose(found.nll(tokens), dense.nll(tokens), atol=1e-4)
    assert torch.equal(found.argmax(), dense.argmax())
    table = torch.randn(9, 2)
    assert torch.allclose(found.expect(table), dense.expect(table), atol=1e-4)
    cold = found.with_temperature(0.5).log_probs()
    parts = [part.with_temperature(0.5).log_probs() for part in (strong, weak)]
    assert torch.allclose(
        cold, (weight * parts[0] + (1 - weight) * parts[1]).log_softmax(-1), atol=1e-4
    )


def test_what_is_ruled_out_stays_so_and_rows_stay_numbers() -> None:
    strong = Dense(torch.tensor([[[0.5, 0.5, 0.0]]]).log())
    weak = Dense(torch.tensor([[[1.0, 0.0, 0.0]]]).log())
    assert chunked.guided(strong, weak, 2.0).log_probs().exp().tolist() == [[[0.0, 1.0, 0.0]]]
    assert chunked.guided(strong, weak, 0.5).log_probs().exp().tolist() == [[[1.0, 0.0, 0.0]]]


def models(method: Flow | FlowMap, *seeds: int) -> list[LanguageModel]:
    made = []
    for seed in seeds:
        torch.manual_seed(seed)
        network = method.network(SIZE, 9, 6)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(std=0.3)
        experiment = flowlm.load("demo").experiment
        made.append(
            LanguageModel(
                experiment.__class__("x", method, Jumps(), experiment.data, SIZE), network, None, 6
            )
        )
    return made


@pytest.mark.parametrize("method", [Flow(input=BayesInput()), FlowMap(input=BayesInput())])
def test_guidance_at_its_ends(method: Flow | FlowMap) -> None:
    model, other = models(method, 0, 1)
    plain = model.sample(4, 3)
    assert torch.equal(model.sample(4, 3, sampler=model.guided(by=other, weight=1.0)), plain)
    weak = model.sample(4, 3, sampler=model.guided(by=other, weight=0.0))
    assert torch.equal(weak, other.sample(4, 3))
    assert not torch.equal(weak, plain)
    # Led away from itself a model stays where it is, and without a prompt there is nothing to lose.
    for way in (model.guided(by=model, weight=7.0), model.guided(prompt=True, weight=7.0)):
        assert torch.equal(model.sample(4, 3, sampler=way), plain)
    calls = []
    handles = [m.network.register_forward_hook(lambda *_: calls.append(1)) for m in (model, other)]
    way = model.guided(by=other, weight=2.0)
    led = model.sample(4, 3, sampler=way)
    assert len(calls) == way.evaluations(3, 6) == 6
    for handle in handles:
        handle.remove()
    assert torch.equal(model.sample(2, 3, sampler=way), led[:2])


def test_dropout_makes_a_weaker_network_of_the_same_weights() -> None:
    (model,) = models(Flow(input=BayesInput()), 0)
    weak = with_dropout(model.network, 0.4)
    assert all(a is b for a, b in zip(weak.parameters(), model.network.parameters()))
    assert (weak.training, model.network.training) == (True, False)
    assert {block.dropout for block in model.network.blocks} == {0.0}
    way = model.guided(dropout=0.4, weight=3.0)
    led = model.sample(8, 4, sampler=way)
    assert not torch.equal(led, model.sample(8, 4))
    assert torch.equal(model.sample(3, 4, sampler=way), led[:3])


def test_a_prompt_is_dropped_to_the_noise_of_the_rest(agreement: Language) -> None:
    """Of the exact denoiser: the point that the weak answer is read from, and its times."""
    asked: list[tuple[Tensor, Tensor]] = []
    clock = Decoding(4)

    def two_time(x: Tensor, s: Tensor, t: Tensor) -> Dense:
        asked.append((x, s))
        return agreement.denoiser(x, clock.t(s).clamp(max=0.96))

    denoiser = Denoiser(two_time, OneHot(4), clock)
    prompt = torch.tensor([[core.FREE, 2, core.FREE]]).expand(400, 3)
    from flowlm.sampling.guidance import without_prompt

    way = GuidedSampler(Jumps(), without_prompt, 2.0)
    *_, last = way.frames(denoiser, prompt, 2, Streams.of(3, count=400))
    assert (last.tokens()[:, 1] == 2).all()
    (x, s), (noisy, as_free) = asked[2:4]
    assert s[0].tolist() == pytest.approx([0.5, 1.0, 0.5])
    assert as_free[0].tolist() == [0.5, 0.5, 0.5]
    assert torch.equal(noisy[:, [0, 2]], x[:, [0, 2]])
    t = float(clock.t(torch.tensor([[0.5]])))
    left = (noisy[:, 1] - t * torch.eye(4)[2]) / (1 - t)
    assert abs(float(left.mean())) < 0.1
    assert float(left.std()) == pytest.approx(1, abs=0.1)
    # The same noise at the start, when none of the token is left.
    assert torch.allclose(left.float(), asked[1][0][:, 1].float(), atol=1e-4)


def test_guides_that_do_not_fit_are_refused(demo: LanguageModel) -> None:
    flow, other = models(Flow(), 0, 1)
    for call, said in {
        (lambda: flow.guided(by=other)): "token table",
        (lambda: flow.guided(by=demo)): "kind",
        (lambda: flow.guided()): "one weaker network",
        (lambda: flow.guided(dropout=0.0)): "dropout",
        (lambda: flow.guided(dropout=0.1, weight=math.nan)): "weight",
        (lambda: flow.guided(dropout=0.1, sampler=LeftToRight())): "LeftToRight",
    }.items():
        with pytest.raises(Refusal, match=said):
            call()


# --- look-ahead -----------------------------------------------------------------------------------


def test_one_candidate_is_jumps(demo: LanguageModel) -> None:
    way = LookAhead(reward=lambda tokens: torch.rand(len(tokens)), candidates=1)
    assert torch.equal(demo.sample(3, 3, sampler=way), demo.sample(3, 3, sampler=Jumps(gamma=1.0)))


def test_one_step_is_the_best_of_as_many_texts(demo: LanguageModel) -> None:
    """The noises of a text come from its own stream, one after the other."""
    way = LookAhead(reward=lambda tokens: (tokens == 14).sum(1), candidates=5)
    found = demo.sample(4, sampler=way)
    denoiser = demo.experiment.method.denoiser(demo.network)
    rng, zero, one = Streams.of(0, count=4), torch.zeros(4, 1), torch.ones(4, 1)
    with torch.no_grad():
        noises = (denoiser.start(18, rng, None) for _ in range(5))
        texts = torch.stack([denoiser.two_time(x, zero, one).argmax() for x in noises])
    best = (texts == 14).sum(-1).argmax(0)
    assert torch.equal(found, texts[best, torch.arange(4)])
    assert torch.equal(demo.sample(2, 3, sampler=way), demo.sample(4, 3, sampler=way)[:2])


def test_every_candidate_is_counted(demo: LanguageModel) -> None:
    calls: list[int] = []
    handle = demo.network.register_forward_hook(lambda *_: calls.append(1))
    way = demo.rewarded(lambda texts: [-len(text) for text in texts], candidates=3)
    demo.generate(2, steps=2, sampler=way)
    handle.remove()
    assert len(calls) == way.evaluations(2, 18) == 6


@pytest.mark.parametrize("told", [[1.0], "ab", [math.nan, 0.0], None])
def test_rewards_that_are_none_are_refused(demo: LanguageModel, told: object) -> None:
    with pytest.raises(Refusal, match="reward"):
        demo.sample(2, sampler=LookAhead(reward=lambda tokens: told))


# --- refinement -----------------------------------------------------------------------------------


def conditional_map(language: Language) -> Denoiser:
    """A map that draws every free token by its noise, from its law given the clean tokens alone."""

    def two_time(x: Tensor, s: Tensor, t: Tensor) -> Dense:
        known = x.argmax(-1).where(s == 1, language.vocab)
        rows = language.unmasker(known, language.vocab).logp.exp()
        u = torch.special.ndtr(x[..., :1].double())
        token = torch.searchsorted(rows.cumsum(-1).contiguous(), u).clamp(max=language.vocab - 1)
        return Dense((0.6 * torch.zeros_like(rows).scatter(-1, token, 1.0) + 0.4 / 4).log())

    return Denoiser(two_time, OneHot(language.vocab), Decoding(language.vocab))


def test_a_round_a_token_writes_the_language(
    agreement: Language, fits: Callable[[Tensor, Tensor], None]
) -> None:
    """By the chain rule, each token from its exact law given those before; one round: marginals."""
    denoiser, n = conditional_map(agreement), 4000
    fits(counted(written(denoiser, Refine(), 3, n), 4), joint(agreement))
    fits(counted(written(denoiser, Refine(), 1, n), 4), product_of_marginals(joint(agreement)))
    # All are sure: they stay in the first round.
    *_, first, _ = Refine(0.5).frames(
        denoiser, torch.full((5, 3), core.FREE), 2, Streams.of(0, count=5)
    )
    assert (first.decided != core.FREE).all()


def test_what_a_round_commits() -> None:
    certain = torch.tensor([[0.2, 0.9, 1.0, 0.2, 0.5]])
    free = torch.tensor([[True, True, False, True, True]])
    assert Refine(0.95).committed(certain, free, 4).tolist() == [[False, True, False, False, False]]
    assert Refine(0.95).committed(certain, free, 2).tolist() == [[False, True, False, False, True]]
    assert Refine(0.4).committed(certain, free, 4).tolist() == [[False, True, False, False, True]]
    assert Refine().committed(certain, free, 1).tolist() == free.tolist()


# --- editing --------------------------------------------------------------------------------------


def test_a_variation_of_no_strength_is_the_text(demo: LanguageModel) -> None:
    text = demo.sample(1, 8)
    assert torch.equal(vary(demo, text, 0.0, n=3), text.expand(3, 18))
    assert torch.equal(vary(demo, demo.tokenizer.decode(text[0].tolist()), 0.0), text)
    near, far = (
        float((vary(demo, text, a, n=20, steps=2) == text).float().mean()) for a in (0.3, 1)
    )
    assert 1 > near > far + 0.1
    again = vary(demo, text, 0.7, n=4, steps=2)
    assert torch.equal(vary(demo, text, 0.7, n=2, steps=2), again[:2])
    # Nothing is left of it: the text of the noise itself.
    assert torch.equal(vary(demo, text, 1.0, n=2, steps=2), demo.sample(2, 2))


def test_a_text_is_edited_as_text(demo: LanguageModel) -> None:
    text = demo.generate(1, steps=8)[0]
    assert demo.vary(text, 0.6, n=3) == demo.decode(vary(demo, text, 0.6, n=3))
    assert demo.between(0, text, count=3) == demo.decode(between(demo, 0, text, count=3))


def test_the_flow_leads_back_to_a_text_from_its_noise(demo: LanguageModel) -> None:
    text = demo.sample(4, 8)
    noise = noise_of(demo, text, steps=24)
    assert abs(float(noise.dense().std()) - 1) < 0.15
    assert float((write_from(demo, noise, 24, sampler=Euler()) == text).float().mean()) > 0.9


def test_between_two_texts_the_ends_are_theirs(demo: LanguageModel) -> None:
    way = between(demo, 0, 3, count=5)
    assert torch.equal(way[[0, -1]], demo.sample(4, sampler=Jumps(gamma=0.0))[[0, 3]])
    changes = [int((a != b).sum()) for a, b in pairwise(way)]
    assert max(changes) < int((way[0] != way[-1]).sum())


def test_confidence_is_the_probability_of_what_is_shown(demo: LanguageModel) -> None:
    prompt = demo.sample(2)
    prompt[:, 4:] = core.FREE
    frames = list(demo.film(2, 3, prompt=prompt))
    for frame in frames:
        shown = frame.confidence()
        largest = frame.prediction.log_probs().exp().amax(-1)
        assert torch.allclose(shown[:, 4:], largest[:, 4:], atol=1e-5)
        assert (shown[:, :4] == 1).all()
    taus = [float(frame.tau[0, -1]) for frame in frames]
    assert taus == pytest.approx([0, 1 / 3, 2 / 3])


def test_edits_that_cannot_be_are_refused(demo: LanguageModel) -> None:
    text = demo.sample(1)
    for call, said in {
        (lambda: vary(demo, text, 1.5)): "strength",
        (lambda: vary(demo, text, True)): "strength",
        (lambda: vary(demo, "these old pupils", 0.5)): "18",
        (lambda: vary(demo, text, 0.5, sampler=Refine())): "Refine",
        (lambda: vary(demo, text.expand(2, 18), 0.5)): "One text",
        (lambda: between(demo, 0, text, count=1)): "texts between",
        (lambda: noise_of(demo, text, start=1.0)): "clock time",
    }.items():
        with pytest.raises(Refusal, match=said):
            call()
