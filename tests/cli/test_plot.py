"""The plot line, drawn."""

from hypothesis import example, given
from hypothesis import strategies as st

from chronik_store.cli.plot import bar_of, cells_of, lengths_of
from chronik_store.model import Watermarks

lines = st.lists(st.integers(0, 10**12), min_size=7, max_size=7).map(
    lambda limits: Watermarks(*sorted(limits))
)


@given(lines, st.integers(5, 200))
@example(Watermarks(0, 1, 2, 3, 11, 11, 19), 5)  # two that are wide took one's cells twice
def test_the_bar_has_its_width_and_shows_every_part_that_is_not_empty(line, width):
    cells = cells_of(line, width)

    assert width == sum(cells) or line.start == line.end
    assert [length > 0 for length in lengths_of(line)] == [count > 0 for count in cells]


def test_parts_stand_in_the_order_of_the_plot_line():
    line = Watermarks(start=10, indexed=20, tiered=30, sealed=40, committed=50, durable=55, end=60)

    assert "██▓▓▒▒░░··" == bar_of(line, 10, colour=False)


def test_an_empty_log_is_an_empty_bar():
    assert "     " == bar_of(Watermarks(3, 3, 3, 3, 3, 3, 3), 5, colour=False)
