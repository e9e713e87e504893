"""The screen from its first frame to its exit status, with the signals that end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flowtop.errors import EXIT_FAILURE
from flowtop.process import stop_on_signals
from flowtop.tui.app import FlowtopApp
from flowtop.tui.saved import Looks

if TYPE_CHECKING:
    from flowtop.export.exports import Exports
    from flowtop.pipeline.pipeline import Pipeline
    from flowtop.query.query import Query
    from flowtop.query.views import ListView
    from flowtop.recording.recorder import Recorder


def run_screen(make_pipeline: Callable[[], Pipeline], query: Query, exports: Exports, looks: Looks,
               recorder: Recorder, more_views: Sequence[ListView] = ()) -> int:
    """Show flows until the user quits; gives the exit status.

    Args:
        make_pipeline: called once, after the first paint.
        query: the first one.
        exports: for the panel; ended by the caller.
        looks: how it looks at first.
        recorder: writes packets for `W`.
        more_views: of the list, beside the usual ones.

    Raises FlowtopError: capturing could not start, or failed.
    """
    opened: list[Pipeline] = []

    def open_pipeline() -> Pipeline:
        opened.append(make_pipeline())
        return opened[0]

    app = FlowtopApp(open_pipeline, query, exports=exports, packets=recorder, looks=looks,
                     more_views=more_views)

    def stop() -> None:
        # The pipeline first: a terminal that has stalled holds up the screen, and must not keep hooks attached.
        for pipeline in opened:
            recorder.stop_by_signal(pipeline.request_stop)
        app.request_quit()

    stop_on_signals(stop, exports.hurry)
    try:
        app.run()
    finally:
        for pipeline in opened:  # has stopped already unless the screen itself broke
            pipeline.stop()
    if app.error is not None:
        raise app.error
    return EXIT_FAILURE if app.return_code is None else app.return_code  # None: the screen broke
