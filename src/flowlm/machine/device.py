"""Names of devices. Torch-free: a slip of the pen is refused at once."""

from __future__ import annotations

import re

from flowlm.errors import Refusal


def device_name(name: str) -> str:
    """`name`, which is auto, cpu, mps, cuda, or cuda:1 and so on; a Refusal otherwise.

    Whether the device is there is for torch to say (`hardware.choose_device`).
    """
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,4})?", name) is None:
        raise Refusal(
            f"There is no device {name}: choose auto, cpu, cuda, cuda:1 and so on, or mps."
        )
    return name
