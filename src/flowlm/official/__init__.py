"""The format of the officially released models: a Lightning `.ckpt`, or a folder of the hub."""

from flowlm.official.folder import write_folder
from flowlm.official.released import Released, is_official, read_released

__all__ = ["Released", "is_official", "read_released", "write_folder"]
