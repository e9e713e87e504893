"""What Python itself is too slow for, as a small library in C: passes over the flow table's columns.

Each `NAME.c` is one idea, and `NAME.py` beside it calls it with numpy arrays. The same is done by numpy where the table
needs it, which is the reference: both leave the same octets (tests/unit/native). The library is plain C11 and knows
nothing of Python, so calls of it let other threads run.

Ownership: all memory is the caller's. A function of the library allocates nothing, and keeps no pointer after it
returns; `NAME.py` checks the types and sizes of arrays before it passes their addresses.
"""
