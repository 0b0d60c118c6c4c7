"""The table of pages is written line by line as lists grow and give way to others; what it says must be the
lists.
"""

import random

from engine.page_table import PageTable


def shown(table: PageTable, lists: list[list[int]]) -> list[list[int]]:
    found = table.of(lists)
    return [found[line, : len(pages)].tolist() for line, pages in enumerate(lists)]


def test_pages_that_are_added_to_a_list_are_added_to_its_line():
    table = PageTable()
    pages = [4, 9]
    assert shown(table, [pages]) == [[4, 9]]
    pages += [1]
    assert shown(table, [pages]) == [[4, 9, 1]]


def test_another_list_as_long_takes_the_line_over():
    table = PageTable()
    assert shown(table, [[4, 9], [5]]) == [[4, 9], [5]]
    assert shown(table, [[7, 8], [6]]) == [[7, 8], [6]]


def test_a_shorter_step_forgets_the_lines_behind_it():
    table = PageTable()
    first = [1]
    second = [2, 3]
    assert shown(table, [first, second]) == [[1], [2, 3]]
    assert shown(table, [first]) == [[1]]
    assert shown(table, [first, [8, 9]]) == [[1], [8, 9]]


def test_any_lists_in_any_order_are_shown_as_they_are():
    rng = random.Random(0)
    table = PageTable()
    lists = [[0]]
    for _ in range(500):
        lists = rng.sample(lists, rng.randint(1, len(lists)))
        lists += [rng.choices(range(100), k=rng.randint(1, 4)) for _ in range(rng.randint(0, 3))]
        for pages in rng.sample(lists, rng.randint(0, len(lists))):
            pages += rng.choices(range(100), k=rng.randint(1, 3))
        assert shown(table, list(lists)) == lists
