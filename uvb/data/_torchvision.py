"""Import torchvision.datasets, even if torchvision's compiled operators cannot be loaded."""

import importlib
import sys
from functools import cache
from typing import Any

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # keeps each Library alive, because its schemas are lost when it is collected


@cache
def torchvision_datasets() -> Any:
    """The module ``torchvision.datasets``.

    On a CPU build of torch, the usual wheel of torchvision cannot load its compiled operators. Then the import fails, because
    ``torchvision::nms`` has no schema. The data sets use no operators, so this function declares the schemas and imports again.
    """
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # the failed import left incomplete modules
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)
    return importlib.import_module("torchvision.datasets")
