"""Which device this machine computes on. Knows neither the database nor who else would like to have it."""

import torch

from trainer.recipes.program import DeviceMissing


def available_device(wanted: str) -> str:
    """The device, "cuda" or "cpu". wanted: "auto", "cpu" or "cuda".

    Raises DeviceMissing when a GPU is insisted on and there is none.
    """
    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise DeviceMissing(wanted)
    return "cpu"
