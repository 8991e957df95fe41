"""Released checkpoints, written from their description: exactly the published network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import synthetic
import torch
from synthetic import Shape
from torch import Tensor

import flowlm
from flowlm import nn, sampling
from flowlm.cli import main
from flowlm.core import Decoding, OneHot, Projected, Streams
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import Text, read_experiment
from flowlm.hub.transfer import locate
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import LinearInput, ProjectedInput
from flowlm.model.finding import experiment_of
from flowlm.model.released.names import our_names
from flowlm.nn.attention import rotary_frequencies
from flowlm.sampling import Euler, Jumps

TIMES = [1, 2]


def point(shape: Shape, texts: int = 3, seed: int = 5) -> Tensor:
    """A point between noise and text."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(texts, shape.length, shape.vocab, generator=rng)
    tokens = torch.randint(shape.vocab, (texts, shape.length), generator=rng)
    return 0.6 * x + 0.4 * torch.nn.functional.one_hot(tokens, shape.vocab)


@pytest.fixture(params=["folder", "ckpt", "compiled ckpt", "ckpt with plain config"])
def container(request: pytest.FixtureRequest) -> str:
    return request.param


def written(container: str, place: Path, shape: Shape) -> tuple[Path, synthetic.Tensors]:
    """A model in a container, and the weights that count."""
    if container == "folder":
        return place / "model", synthetic.write_folder(place / "model", shape)
    content, averaged = synthetic.checkpoint(shape, compiled=container == "compiled ckpt")
    synthetic.write_ckpt(place / "model.ckpt", content, omegaconf="plain" not in container)
    return place / "model.ckpt", averaged


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("weighting", [False, True])
def test_it_answers_as_the_published_network(
    container: str, times: int, weighting: bool, tmp_path: Path
) -> None:
    shape = Shape(two_times=times == 2, weighting=weighting)
    name, weights = written(container, tmp_path, shape)
    model = flowlm.load(name)
    x = point(shape)
    s, t = torch.tensor([0.0, 0.35, 0.7]), torch.tensor([1.0, 0.4, 0.98])
    taus = (s, t)[:times]
    wanted = synthetic.answer(weights, shape, x, *taus)
    got = model.denoise(x, *taus)
    assert got.dtype == torch.float32
    assert (got - wanted).abs().max() < 1e-4
    assert (wanted.amax(-1) > 0.5).any(), "the model is not sure of anything"
    assert (wanted[:, 1:] - wanted[:, :-1]).abs().max() > 0.1, "its places are alike"
    raw = synthetic.parameters(shape, seed=1)
    assert (synthetic.answer(raw, shape, x, *taus) - wanted).abs().max() > 0.1
    if times == 2:
        only = synthetic.answer(weights, shape, x, s, s)
        assert (model.denoise(x, s) - only).abs().max() < 1e-4
    per_token = [tau[:, None].expand(3, shape.length) for tau in taus]
    assert torch.allclose(model.denoise(x, *per_token), got, atol=1e-5)
    assert torch.allclose(model.denoise(x, *taus, memory=1), got, atol=1e-5)


@pytest.mark.parametrize("times", TIMES)
def test_what_it_is_is_read_from_the_file(container: str, times: int, tmp_path: Path) -> None:
    shape = Shape(two_times=times == 2, vocab=31, width=24, heads=3, blocks=3, length=9)
    name, _ = written(container, tmp_path, shape)
    model = flowlm.load(name)
    assert model.experiment == experiment_of(locate(name))
    method = model.experiment.method
    assert isinstance(method, Flow if times == 1 else FlowMap)
    assert (method.input, method.clock) == (ProjectedInput(), "decoding")
    assert model.experiment.sampler == (Euler() if times == 1 else Jumps(gamma=0.0))
    assert model.experiment.size == nn.Size(
        blocks=3, width=24, heads=3, condition=6, attention_cap=50.0, output_cap=30.0
    )
    assert model.experiment.data == Text(path=None, length=9)
    assert (model.length, model.network.vocab, model.tokenizer) == (9, 31, None)
    with pytest.raises(Refusal, match="tokenizer="):
        model.generate(1)
    tokens = model.sample(5, steps=3)
    assert tokens.shape == (5, 9)
    assert torch.equal(model.sample(2, steps=3), tokens[:2])
    assert torch.equal(model.sample(5, steps=3, memory=1), tokens)
    if times == 1:
        with pytest.raises(Refusal, match="leave t out"):
            model.denoise(torch.zeros(1, 9, 31), torch.zeros(1), torch.ones(1))


@pytest.mark.parametrize(("vocab", "gamma"), [(30_522, 0.8), (50_258, 1.0), (23, 0.0)])
def test_flow_maps_renoise_as_published(
    vocab: int, gamma: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    synthetic.write_folder(tmp_path / "map", Shape(two_times=True, vocab=vocab))
    assert experiment_of(tmp_path / "map").sampler == Jumps(gamma)


# Dimensions of the released models: vocabulary, times, parameters with 32 of the rotary buffer.
PUBLISHED = [
    (50_258, 1, 169_627_250),
    (50_258, 2, 169_676_658),
    (30_522, 1, 139_293_018),
    (30_522, 2, 139_342_426),
]


@pytest.mark.parametrize(("vocab", "times", "count"), PUBLISHED)
def test_the_four_released_models_have_their_counts(vocab: int, times: int, count: int) -> None:
    """Every tensor of the format has a place in our network, and none of ours is left over."""
    method = Flow() if times == 1 else FlowMap()
    with torch.device("meta"):
        network = method.network(nn.Size(), vocab, 1024)
    ours = dict(network.named_parameters())
    names = our_names(nn.Size().blocks, times)
    assert sorted(names.values()) == sorted(ours)
    assert len(set(names.values())) == len(names)
    buffer = rotary_frequencies(64, torch.device("cpu")).numel()
    assert sum(ours[name].numel() for name in names.values()) + buffer == count


@dataclass(frozen=True, eq=False)
class Image(Projected):
    """The projected space, whose noise is the very noise of one-hot space."""

    def noise(self, rng: Streams, length: int) -> Tensor:
        return OneHot(len(self.table)).noise(rng, length) @ self.table


@torch.no_grad()
@pytest.mark.parametrize(("times", "gamma"), [(1, 0.0), (2, 0.0), (2, 0.8), (2, 1.0)])
@pytest.mark.parametrize("steps", [1, 6])
def test_dense_and_projected_states_write_the_same(
    times: int, gamma: float, steps: int, tmp_path: Path
) -> None:
    """The state of the published code is (l, v), ours (l, d): the same tokens from the same x0."""
    shape = Shape(two_times=times == 2)
    synthetic.write_folder(tmp_path / "model", shape)
    model = flowlm.load(tmp_path / "model")
    method = type(model.experiment.method)(input=LinearInput())
    dense = method.network(model.experiment.size, shape.vocab, shape.length).eval()
    dense.load_state_dict(model.network.state_dict())
    clock, whole = Decoding(shape.vocab), OneHot(shape.vocab)
    sampler = Euler() if times == 1 else Jumps(gamma)
    image = Image(model.network.encoder.table)
    x0 = whole.noise(Streams.of(3, count=40), shape.length)
    grid = clock.grid(steps)

    def travel(network: nn.DiT, space, x: Tensor) -> Iterator[sampling.Frame]:
        denoiser = sampling.Denoiser(method.two_time(network), space, clock)
        return sampler.walk(denoiser, x, grid, Streams.of(4, count=40))

    ways = [
        list(travel(dense, whole, x0)),
        list(travel(model.network, image, image.from_one_hot(x0))),
    ]
    for one, two in zip(*ways, strict=True):
        assert torch.equal(one.prediction.argmax(), two.prediction.argmax())
        assert torch.allclose(image.from_one_hot(one.x), two.x, atol=1e-2)
    assert len(ways[0]) == steps
    assert len(ways[0][-1].prediction.argmax().unique(dim=0)) > 20


@pytest.mark.parametrize("times", TIMES)
def test_reading_needs_none_of_the_packages_that_wrote_it(times: int, tmp_path: Path) -> None:
    content, _ = synthetic.checkpoint(Shape(two_times=times == 2))
    synthetic.write_ckpt(tmp_path / "model.ckpt", content, omegaconf=True)
    code = (
        "import sys, flowlm\n"
        "for name in ('omegaconf', 'lightning', 'pytorch_lightning', 'transformers'):\n"
        "    sys.modules[name] = None\n"
        f"print(flowlm.load({str(tmp_path / 'model.ckpt')!r}).sample(1).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "torch.Size([1, 7])", done.stderr


def test_a_released_flow_is_a_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size and length are taken over, and the student starts as it."""
    monkeypatch.chdir(tmp_path)
    shape = Shape(vocab=28)
    averaged = synthetic.write_folder(tmp_path / "flow", shape)
    Path("text.txt").write_text("abcdefghijklmnopqrstuvwxyz\n" * 40)
    Tokenizer.characters(["abcdefghijklmnopqrstuvwxyz"]).save(tmp_path / "flow/tokenizer.json")
    words = "train text-flow-map --method.teacher flow --data.path text.txt --train.steps 2"
    words += " --train.batch 4 --train.lr 1e-12 --train.ema 1 --out map"
    assert main(words.split()) == 0
    student = read_experiment("map")
    assert student.size == experiment_of(Path("flow")).size
    assert student.data.length == 7
    own = flowlm.load("map").weights
    for theirs, ours in our_names(2, 1).items():
        assert torch.allclose(own[ours], averaged[theirs], atol=1e-6), ours


def test_narrow_numbers_change_little(tmp_path: Path) -> None:
    """bfloat16 holds blocks and head; the state, the clock and the softmax stay in float32."""
    shape = Shape(two_times=True)
    synthetic.write_folder(tmp_path / "model", shape)
    wide = flowlm.load(tmp_path / "model")
    narrow = flowlm.load(tmp_path / "model", dtype=torch.bfloat16)
    kinds = {name: p.dtype for name, p in narrow.network.named_parameters()}
    for name, kind in kinds.items():
        state = name.startswith(("encoder.", "times."))
        assert kind == (torch.float32 if state else torch.bfloat16), name
    x, s, t = point(shape), torch.tensor([0.1, 0.5, 0.9]), torch.ones(3)
    one, two = wide.denoise(x, s, t), narrow.denoise(x, s, t)
    assert two.dtype == torch.float32
    assert torch.allclose(two.sum(-1), torch.ones(3, 7), atol=1e-5)
    assert 0 < (one - two).abs().mean() < 0.02
    # A clock in bfloat16 could not tell these times apart.
    near = narrow.network.times[0](torch.tensor([[0.7], [0.7001]]))
    assert not torch.equal(near[0], near[1])
    frames = list(narrow.film(2, 3))
    assert all(frame.x.dtype == frame.tau.dtype == torch.float32 for frame in frames)
    assert narrow.sample(3, steps=4).shape == (3, 7)
    with pytest.raises(Refusal, match="bfloat16"):
        flowlm.load(tmp_path / "model", dtype=torch.float64)
    narrow.save(tmp_path / "export")
    again = flowlm.load(tmp_path / "export")
    for name, weight in again.weights.items():
        assert torch.equal(weight, narrow.weights[name].float())


def test_a_teacher_without_a_tokenizer_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.write_folder(tmp_path / "flow", Shape())
    (tmp_path / "text.txt").write_text("abc\n" * 400)
    words = ["--data.path", str(tmp_path / "text.txt"), "--out", str(tmp_path / "map")]
    teacher = ["--method.teacher", str(tmp_path / "flow")]
    assert main(["train", "text-flow-map", *teacher, *words]) == 2
    assert "no tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "map").exists()


def test_the_command_line_chooses_device_and_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    name = str(tmp_path / "flow")
    synthetic.write_folder(tmp_path / "flow", Shape())
    words = ["sample", name, "--num", "3", "--steps", "4"]
    assert main([*words, "--dtype", "bfloat16", "--device", "cpu"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    wanted = flowlm.load(name, dtype=torch.bfloat16).sample(3, 4)
    assert shown == [[str(token) for token in row] for row in wanted.tolist()]
    for command in (words, ["evaluate", name, "--num", "3"]):
        assert main([*command, "--device", "cuda"]) == 2
        assert "no device cuda" in capsys.readouterr().err
    assert main([*words, "--dtype", "float64"]) == 2


@pytest.mark.parametrize("device", ["cuda:97", "mps:0", "tpu", "meta"])
def test_a_device_that_is_not_there_is_refused(device: str, tmp_path: Path) -> None:
    synthetic.write_folder(tmp_path / "model", Shape())
    if device.startswith("mps") and torch.mps.is_available():
        return
    with pytest.raises(Refusal, match=device):
        flowlm.load(tmp_path / "model", device=device)


def test_points_and_prompts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    shape = Shape()
    synthetic.write_folder(tmp_path / "model", shape)
    model = flowlm.load(tmp_path / "model")
    x, half = torch.zeros(2, 7, shape.vocab), torch.full((2,), 0.5)
    for bad in (
        torch.full((3,), 0.5),
        torch.full((2, 6), 0.5),
        half + 1,
        half - 1,
        half * torch.nan,
    ):
        with pytest.raises(Refusal, match="tau"):
            model.denoise(x, bad)
    with pytest.raises(Refusal, match="vocabulary"):
        model.denoise(torch.zeros(2, 7, 16), half)
    prompt = torch.full((2, 7), -1)
    prompt[:, 3] = 5
    assert (model.sample(2, 3, prompt=prompt)[:, 3] == 5).all()
    for wrong in (prompt[:1], prompt[:, :6], prompt + shape.vocab, prompt - 1):
        with pytest.raises(Refusal, match="prompt"):
            model.sample(2, 3, prompt=wrong)
