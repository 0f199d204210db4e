"""Named spaces: lists of trainings to sweep over. Add one as a file in `paper` or `tuning`, or an entry point in `uvb.spaces`.

```python
@register_space("my_space")                     # kind="choice" or "search": judged by held-out images
def my_space(base: Base) -> list[RunSpec]:
    return [base.spec(model, sigma) for model in base.models for sigma in (0.5, 1.0)]
```
"""

from tune_spaces.registry import Base, Space, get_space, register_space, space_names
from uvb.registry import import_files

__all__ = ["Base", "Space", "get_space", "register_space", "space_names"]

import_files(__name__, __path__)
