"""What is kept in memory stays within its bytes, and is the version that was asked for."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from app.reward_models.kept import Kept
from app.reward_models.tables import scored_rankings


@dataclass
class Thing:
    num_bytes: int


def test_what_was_asked_for_last_is_kept_as_far_as_it_fits() -> None:
    kept, read = Kept[Thing](100), []

    def ask(name: str, size: int) -> Thing:
        return kept.get(name, "v1", lambda: (read.append(name), Thing(size))[1])

    for name, size in (("a", 40), ("b", 40), ("a", 40), ("c", 40)):  # b was asked for longest ago
        ask(name, size)
    assert (read, kept.num_bytes) == (["a", "b", "c"], 80)
    ask("a", 40)
    ask("b", 40)
    assert read == ["a", "b", "c", "b"]


def test_the_last_one_is_kept_whatever_its_size_and_alone_where_it_fills_everything() -> None:
    kept = Kept[Thing](100)
    kept.get("a", "v1", lambda: Thing(1))
    large = kept.get("large", "v1", lambda: Thing(101))
    assert kept.get("large", "v1", lambda: pytest.fail("it was read again")) is large
    assert kept.num_bytes == 101
    kept.get("a", "v1", lambda: Thing(1))
    assert kept.num_bytes == 1


def test_what_two_ask_for_at_once_is_read_once_and_holds_up_nobody_who_asks_for_another() -> None:
    kept, num_read = Kept[Thing](100), []
    is_reading, go_on = threading.Event(), threading.Event()

    def read() -> Thing:
        num_read.append(1)
        is_reading.set()
        assert go_on.wait(60)
        return Thing(1)

    with ThreadPoolExecutor(2) as two:
        first = two.submit(kept.get, "a", "v1", read)
        assert is_reading.wait(60)
        second = two.submit(kept.get, "a", "v1", read)
        kept.get("b", "v1", lambda: Thing(2))
        go_on.set()
        assert first.result() is second.result()
    assert len(num_read) == 1


def test_another_version_takes_the_place_of_the_one_before() -> None:
    kept = Kept[Thing](100)
    kept.get("a", "v1", lambda: Thing(1))
    assert kept.get("a", "v2", lambda: Thing(2)) == Thing(2)
    assert kept.num_bytes == 2


def test_what_cannot_be_read_leaves_nothing_behind() -> None:
    kept = Kept[Thing](100)
    kept.get("a", "v1", lambda: Thing(1))

    def missing() -> Thing:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        kept.get("a", "v2", missing)
    assert kept.num_bytes == 0


def test_a_table_knows_about_what_it_takes() -> None:
    row = {
        "ranking_id": "6f2b2a1c-5a0e-4b77-9a53-0f7f2f1a9d11", "prompt_id": 1, "group": "g", "split": "test",
        "labeler": "labeler-1", "held_out_labeler": False, "ranks": [1, 2, 3], "is_pick": False, "margin": None,
        "scores": [1.0, 0.5, 0.0], "characters": [3, 4, 5],
    }  # fmt: skip
    one, many = scored_rankings([row]), scored_rankings([dict(row) for _ in range(1000)])
    numbers = 3 * 8 * 3 + 8 + 8 + 2  # ranks, scores and characters; prompt, margin, and two marks
    assert 1000 * (numbers + 36) <= many.num_bytes <= 1000 * (numbers + 36 + 57 + 24 + 8) + one.num_bytes
    assert many.groups[0] is many.groups[999]
    named = [dict(row) | {"group": f"{number:04} {'g' * 995}"} for number in range(1000)]
    assert scored_rankings(named).num_bytes >= many.num_bytes + 1000 * 1000
