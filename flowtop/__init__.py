"""flowtop: this host's network flows, exactly, in a terminal; and a library of the same parts, see docs/library.md.

The names of the library are imported when they are first used: `import flowtop` alone loads nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from flowtop.api import ipfix, netflow, sflow
    from flowtop.api.collecting import Collector, Connection
    from flowtop.api.decoding import Decoder, Message, Record
    from flowtop.api.errors import DecodeError, EncodeError
    from flowtop.api.reading import ExportMessage, read, read_exports
    from flowtop.api.rows import Biflow, Flow, Group, Row, Rows
    from flowtop.api.sending import Sender
    from flowtop.api.table import Table
    from flowtop.errors import FlowtopError
    from flowtop.filters.errors import FilterError
    from flowtop.model.exporters import CollectingStatistics
    from flowtop.query.query import Books

__all__ = [
    "Biflow", "Books", "CollectingStatistics", "Collector", "Connection", "DecodeError", "Decoder", "EncodeError",
    "ExportMessage", "FilterError", "Flow", "FlowtopError", "Group", "Message", "Record", "Row", "Rows", "Sender",
    "Table", "__version__", "ipfix", "netflow", "read", "read_exports", "sflow",
]

_MODULES = ("ipfix", "netflow", "sflow")
_HOMES = {
    "Biflow": "api.rows", "Books": "query.query", "CollectingStatistics": "model.exporters",
    "Collector": "api.collecting", "Connection": "api.collecting", "DecodeError": "api.errors",
    "Decoder": "api.decoding", "EncodeError": "api.errors", "ExportMessage": "api.reading",
    "FilterError": "filters.errors", "Flow": "api.rows", "FlowtopError": "errors", "Group": "api.rows",
    "Message": "api.decoding", "Record": "api.decoding", "Row": "api.rows", "Rows": "api.rows",
    "Sender": "api.sending", "Table": "api.table",
    "read": "api.reading", "read_exports": "api.reading",
}
"""Module, below flowtop, of each name."""

if not TYPE_CHECKING:  # a type checker would take any name for one that is here
    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            found = import_module(f"flowtop.api.{name}")
        elif name in _HOMES:
            found = getattr(import_module(f"flowtop.{_HOMES[name]}"), name)
        else:
            raise AttributeError(f"module 'flowtop' has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
