"""The temperature of whole rows, evidence included."""

from __future__ import annotations

from dataclasses import replace

from flowlm.chunked.evidence import Evidence
from flowlm.chunked.guided import Guided
from flowlm.chunked.prediction import COLDEST, HeadPrediction
from flowlm.core.distribution import TokenDistribution


def cooled_rows(prediction: TokenDistribution, temperature: float) -> TokenDistribution:
    """p^(1/temperature), normalised, where `with_temperature` would cool the context alone.

    Logits of a head are those of the context plus beta x, so evidence is cooled by its beta. Of a
    prediction without evidence both temperatures are the same.
    """
    if temperature == 1:
        return prediction
    if isinstance(prediction, Guided):
        strong, weak = (cooled_rows(p, temperature) for p in (prediction.strong, prediction.weak))
        return Guided(strong, weak, prediction.weight)
    cold = prediction.with_temperature(temperature)
    if isinstance(cold, HeadPrediction) and (evidence := cold.evidence) is not None:
        beta = evidence.beta / max(temperature, COLDEST)
        return replace(cold, evidence=Evidence(evidence.x, beta))
    return cold
