"""Tables in a terminal: nothing is cut, whatever its width."""

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nce_sim.report.wide_table import print_rows

WORDS = st.text("abcdefgh", min_size=1, max_size=8)


def printed(rows, width):
    text = StringIO()
    print_rows(Console(file=text, width=width), rows)
    return text.getvalue().splitlines()


@given(
    st.lists(WORDS, min_size=1, max_size=8, unique=True),
    st.integers(min_value=20, max_value=90),
    st.data(),
)
def test_every_cell_is_there_and_no_line_is_wider_than_the_console(names, width, data):
    numbers = st.integers(-(10**6), 10**6).map(str)
    cells = st.one_of(numbers, WORDS)
    rows = [{name: data.draw(cells) for name in names} for _ in range(3)]
    lines = printed(rows, width)
    assert max(len(line) for line in lines) <= width
    for row in rows:
        found = " ".join(" ".join(line.split()) for line in lines).split()
        assert all(found.count(cell) >= list(row.values()).count(cell) for cell in row.values())


def test_columns_that_do_not_fit_go_below_beside_the_first():
    rows = [{"rank": "1", "energy (uJ)": "4.92 [2.39, 13.5]", "constraints": "met wholly"}]
    assert printed(rows, 80) == [
        "rank        energy (uJ)  constraints",
        "   1  4.92 [2.39, 13.5]  met wholly ",
    ]
    assert printed(rows, 25) == [
        "rank        energy (uJ)",
        "   1  4.92 [2.39, 13.5]",
        "rank  constraints",
        "   1  met wholly ",
    ]


@pytest.mark.parametrize("cell", ["7", "-0.2 [-0.8, 0.4]", "+1", "0.1 %"])
def test_numbers_stand_to_the_right_and_words_to_the_left(cell):
    *_, line = printed([{"name": "a", "a much longerheading": cell}], 80)
    assert line.endswith(f"  {cell}")
    *_, line = printed([{"name": "a", "heading": "[word]"}], 80)
    assert line == "a     [word] "


def test_headings_are_broken_between_words_only():
    assert printed([{"what": "x", "accuracy lost": "12"}], 80)[:2] == [
        "      accuracy",
        "what      lost",
    ]
