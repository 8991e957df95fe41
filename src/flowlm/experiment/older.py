"""Experiments of earlier formats, brought to the one of today.

Format 1, which carries no number: the settings of the sampler were fields of the method, the
temperature of a flow map was that of its teacher, and its input was the word `encoder`.
"""

from __future__ import annotations

from typing import Any

FORMAT = 2
"""What `experiment.json` says as `format`."""

ENCODERS = {
    "projected": "ProjectedInput",
    "linear": "LinearInput",
    "posterior": "PosteriorInput",
    "bayes": "BayesInput",
}
"""Kinds of inputs, by the words of format 1."""


def upgraded(stated: dict[str, Any]) -> dict[str, Any]:
    """Content of an experiment.json of an earlier format, in the format of today.

    What it should not say stays in it, to be refused with the rest. LookupError, TypeError and
    AttributeError where it is no experiment at all.
    """
    if "format" in stated or "sampler" in stated:
        return stated
    stated = {"format": FORMAT, **stated}
    method = stated["method"] = dict(stated["method"])
    size = stated["size"] = dict(stated["size"])
    stated["sampler"] = _sampler(method)
    if "encoder" in method:
        method["input"] = {"kind": ENCODERS.get(method.pop("encoder"))}
    # The bayes encoder once took any size, and left its cap aside: so do models of that time.
    if method.get("input") == {"kind": "BayesInput"} and type(size.get("output_cap", 0.0)) in (
        int,
        float,
    ):
        size["output_cap"] = None
    return stated


def _sampler(method: dict[str, Any]) -> dict[str, Any]:
    """Take the sampler's settings out of a method."""

    def taken(kind: str, *settings: str) -> dict[str, Any]:
        return {"kind": kind} | {name: method.pop(name) for name in settings if name in method}

    match method["kind"]:
        case "Flow":
            solver = method.pop("solver", "euler")
            return taken({"euler": "Euler", "heun": "Heun"}[solver], "temperature")
        case "FlowMap":
            if "temperature" in method:
                method["teacher_temperature"] = method.pop("temperature")
            return {"gamma": 0.0} | taken("Jumps", "gamma")
        case "Masked":
            return taken("Unmask", "temperature", "top_p")
        case _:
            return taken("LeftToRight", "temperature", "top_p")
