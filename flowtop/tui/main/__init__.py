"""The main screen and its controllers.

A controller is a plain class that owns its state: `list` what is in view, `filter` which flows are listed, `groups`
what rows are, `handoff` what leaves the screen. It gets what it may use (`view.View`, the query, the viewport), has an
`action_...` for each of its keys in `tui/keys.py`, calls `View.changed` after a change, and answers `banners()`: what
the reader must know of it, most important first. `screen.MainScreen` composes them.
"""
