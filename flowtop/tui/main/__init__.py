"""What keys do in the main view, a module for each group of them.

A group is a class over `FlowScreen` with an `action_...` for each entry it has in `tui/keys.py`; `MainScreen` is made
of all groups. A group's own state is set in its `__init__`, which passes its arguments on; a group that tells the
reader something in the header extends `banners`. After a change of any state: `self.changed()`.
"""
