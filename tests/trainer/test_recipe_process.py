"""A recipe's files are followed through cuts, and its end is explained with the next move."""

import json
import os
import signal
from pathlib import Path

from trainer.recipe_process import Tail, explain, is_worth_another_try
from trainer.round_folder import RoundFolder


def write(path: Path, *rows: dict[str, int], end: str = "") -> None:
    with path.open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows) + end)


def test_only_whole_lines_are_read_and_each_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == []  # not there yet
    write(path, {"step": 1}, end='{"step"')
    assert tail.read() == [{"step": 1}]
    write(path, end=": 2}\n")
    assert tail.read() == [{"step": 2}]
    assert tail.read() == []


def test_a_file_that_was_cut_back_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    write(path, {"step": 1, "at": 100}, {"step": 2, "at": 101})
    tail.read()
    os.truncate(path, path.stat().st_size // 2)
    assert tail.read() == [{"step": 1, "at": 100}]


def test_a_cut_is_noticed_though_the_file_has_grown_past_it_since(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    write(path, {"step": 1, "at": 100}, {"step": 2, "at": 101})
    tail.read()
    os.truncate(path, path.stat().st_size // 2)
    write(path, {"step": 2, "at": 200}, {"step": 3, "at": 201})
    assert [row["step"] for row in tail.read()] == [1, 2, 3]


def test_a_named_failure_is_told_in_the_recipes_own_words(tmp_path: Path) -> None:
    folder = RoundFolder(tmp_path)
    folder.write_error("not_finite", "the loss became NaN at step 7", "lower the learning rate")
    assert explain(3, folder, "…") == {
        "code": "not_finite",
        "message": "the loss became NaN at step 7",
        "advice": "lower the learning rate",
        "last_lines": "…",
    }


def test_a_full_disk_that_left_no_room_for_the_error_is_told_from_the_last_line(tmp_path: Path) -> None:
    error = explain(3, RoundFolder(tmp_path), "step 3\nthe disk filled up while x was being written; free some space")
    assert error["message"].startswith("the disk filled up")


def test_a_killed_recipe_is_told_as_memory_that_ran_out(tmp_path: Path) -> None:
    error = explain(-signal.SIGKILL, RoundFolder(tmp_path), "")
    assert error["code"] == "killed"
    assert "memory" in error["message"]
    assert "micro_batch_tokens" in error["advice"]


def test_a_crash_carries_its_last_lines(tmp_path: Path) -> None:
    error = explain(1, RoundFolder(tmp_path), "Traceback\nKeyError: 'x'")
    assert (error["code"], error["message"]) == ("recipe_crashed", "the recipe ended with exit code 1")
    assert error["last_lines"].endswith("KeyError: 'x'")


def test_only_what_came_from_outside_is_tried_again() -> None:
    assert is_worth_another_try(-signal.SIGKILL)
    assert is_worth_another_try(143)
    assert not is_worth_another_try(1)
    assert not is_worth_another_try(3)
