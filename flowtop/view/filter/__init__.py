"""The filter language: text → `Filter`, the same on the command line, behind `/`, in batch mode and in export scope.

`grammar.py` says what can be written, `keys.py` and the columns which words there are, `builder.py` what a text means
as a tree (`tree.py`), `masks.py` which flows that is.
"""

from flowtop.view.filter.errors import FilterError
from flowtop.view.filter.language import Filter, all_of_texts, compile_filter

__all__ = ["Filter", "FilterError", "all_of_texts", "compile_filter"]
