"""Named spaces. A space lists the trainings of a sweep.

To add a space, write a file in `paper` or `tuning`, or declare an entry point in the group `uvb.spaces`:

```python
@register_space("my_space")                     # or kind="choice", or kind="search"; see `Space`
def my_space(base: Base) -> list[RunSpec]:
    return [base.spec(model, sigma) for model in base.models for sigma in (0.5, 1.0)]
```
"""

from tune_spaces.registry import Base, Space, get_space, register_space, space_names
from uvb.registry import import_files

__all__ = ["Base", "Space", "get_space", "register_space", "space_names"]

import_files(__name__, __path__)
