"""The examples in the docstrings of what people call: they say what comes, and it comes."""

from __future__ import annotations

import doctest

import pytest

import flowlm
from flowlm.model.language_model import LanguageModel

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
CALLS = {
    f"{where}.{name}": call
    for where, of in {"flowlm": flowlm, "LanguageModel": LanguageModel}.items()
    for name, call in vars(of).items()
    if ">>>" in (call.__doc__ or "") and not name.startswith("_")
}


@pytest.mark.parametrize("name", CALLS)
def test_an_example_is_true(name: str) -> None:
    test = doctest.DocTestParser().get_doctest(
        CALLS[name].__doc__, {"flowlm": flowlm}, name, None, None
    )
    said: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
    assert said == []


def test_what_people_call_has_examples() -> None:
    wanted = {"generate", "infill", "template", "sample", "film", "denoise", "encode", "score"}
    assert {f"LanguageModel.{name}" for name in wanted} | {"flowlm.load", "flowlm.recipe"} <= {
        *CALLS
    }


def test_the_package_lists_what_it_has() -> None:
    assert {"load", "fit", "recipe", "recipes", "LanguageModel", "Refusal"} <= set(dir(flowlm))
    for name in dir(flowlm):
        assert vars(flowlm).get(name, flowlm.__getattr__) is not None
        exec(f"import flowlm; flowlm.{name}")
