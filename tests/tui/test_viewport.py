"""Random walks of a viewport over a list that changes: it never shows a wrong row, a gap, or another flow's cursor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowtop.query.query import Query
from flowtop.tui.state.questions import Questions
from flowtop.tui.state.viewport import Viewport
from tests.tui.fake_source import FakeSource, random_flows

STEP = st.one_of(
    st.tuples(st.just("move"), st.integers(-3, 3)),
    st.tuples(st.just("pages"), st.sampled_from([-1, 1])),
    st.tuples(st.just("end"), st.booleans()),
    st.tuples(st.just("scroll"), st.integers(-50, 50)),
    st.tuples(st.just("select"), st.integers(0, 30)),
    st.tuples(st.just("resize"), st.integers(0, 40)),
    st.tuples(st.just("follow"), st.none()),
    st.tuples(st.just("clear"), st.none()),
    st.tuples(st.just("shuffle"), st.integers(0, 10**6)),
    st.tuples(st.just("shrink"), st.integers(0, 400)),
)
FLOWS = random_flows(400)


class Walk:
    """A viewport, its questions and a source that answers them, without any widget."""

    def __init__(self) -> None:
        self.source = FakeSource(FLOWS, keep_ticks=0)
        self.viewport = Viewport(10)
        self.questions = Questions(Query(), self.viewport)

    def exchange(self) -> None:
        """Ask until nothing is missing; a walk that never ends would hang here."""
        for _ in range(10):
            query = self.questions.next()
            if query is None:
                return
            self.viewport.show(self.source.page(query))
        raise AssertionError("asks for ever")

    def tick(self) -> None:
        self.source.tick()
        assert self.viewport.page is not None
        self.viewport.show(self.source.page(self.viewport.page.query))
        self.exchange()

    def step(self, name: str, value: object) -> None:
        viewport = self.viewport
        if name == "move":
            viewport.move(int(value) or 1)  # type: ignore[call-overload]
        elif name == "pages":
            viewport.move_pages(value)  # type: ignore[arg-type]
        elif name == "end":
            viewport.move_to_end(last=bool(value))
        elif name == "scroll":
            viewport.scroll(value)  # type: ignore[arg-type]
        elif name == "select":
            viewport.select(value)  # type: ignore[arg-type]
        elif name == "resize":
            viewport.resize(value)  # type: ignore[arg-type]
        elif name == "follow":
            viewport.toggle_follow()
        elif name == "clear":
            viewport.clear_cursor()
        elif name == "shuffle":
            self.source.flows = [row._replace(octet_rate=float(hash((row.flow_id, value)) % 10**9)) for row in FLOWS]
        elif name == "shrink":
            self.source.flows = FLOWS[: value]  # type: ignore[misc]


@given(st.lists(STEP, max_size=25))
def test_view_is_always_a_piece_of_the_list(steps: list[tuple[str, object]]) -> None:
    walk = Walk()
    walk.exchange()
    for name, value in steps:
        walk.step(name, value)
        walk.exchange()
        walk.tick()
        whole = [row.flow_id for row in walk.source.look(Query(limit=None)).rows]
        viewport = walk.viewport
        in_view = [row.flow_id for row in viewport.rows]
        assert in_view == whole[viewport.top:viewport.top + viewport.height]
        assert len(in_view) == min(viewport.height, len(whole))
        if viewport.follow and viewport.cursor is not None:
            assert viewport.cursor in in_view
        assert viewport.cursor is None or viewport.cursor in whole


@given(st.integers(0, 399), st.integers(0, 10**6))
def test_cursor_names_the_same_flow_after_any_shuffle(rank: int, seed: int) -> None:
    walk = Walk()
    walk.exchange()
    walk.viewport.go(rank)
    walk.exchange()
    flow_id = walk.viewport.cursor
    assert flow_id == walk.source.look(Query(limit=None)).rows[rank].flow_id
    walk.step("shuffle", seed)
    top = walk.viewport.top
    walk.tick()
    assert walk.viewport.cursor == flow_id
    assert walk.viewport.top == top


def test_cursor_beyond_the_rows_at_hand_is_set_when_they_come() -> None:
    walk = Walk()
    walk.exchange()
    walk.viewport.move(1)
    walk.viewport.move_to_end(last=True)
    assert walk.viewport.cursor == walk.source.look(Query(limit=None)).rows[0].flow_id
    walk.exchange()
    assert walk.viewport.cursor == walk.source.look(Query(limit=None)).rows[-1].flow_id


def test_home_takes_the_cursor_from_a_flow_that_is_not_listed_any_more() -> None:
    walk = Walk()
    walk.exchange()
    walk.viewport.go(7)
    gone = walk.viewport.cursor
    walk.source.flows = [row for row in FLOWS if row.flow_id != gone]
    walk.tick()
    assert walk.viewport.cursor is None
    walk.viewport.move_to_end(last=False)
    walk.exchange()
    assert walk.viewport.cursor == walk.source.look(Query(limit=None)).rows[0].flow_id
    assert walk.viewport.take_selected() == walk.viewport.rows[0]
