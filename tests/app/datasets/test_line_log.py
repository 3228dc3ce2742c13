"""What each line became: kept in order, read again as often as wanted, and not in memory."""

from app.datasets import line_log
from app.datasets.line_log import Line, LineLog


def test_lines_come_back_in_their_order_and_their_blocks_are_not_held() -> None:
    log = LineLog()
    lines = [Line(number, "slate of 2", remark="known") for number in range(3 * line_log.LINES_A_BLOCK + 7)]
    for line in lines:
        log.add(line)
    assert list(log.all()) == lines
    assert list(log.all()) == lines
    assert log.shown == lines[: line_log.LINES_SHOWN]
    lists = [held for held in vars(log).values() if isinstance(held, list)]
    assert not any(isinstance(item, bytes) for held in lists for item in held)
