"""Prompts: duplicates are found, and a group never stands on both sides of the split."""

from collections import Counter
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.projects.models import Project
from app.prompts.errors import BadPrompt
from app.prompts.messages import checked_prompt, storable, user_message
from app.prompts.models import Prompt, PromptKind, Split, Use
from app.prompts.service import add_prompts, place_prompts, set_aside

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture
def garden(session: Session) -> Project:
    project = Project(slug="garden", name="Garden", flags=[])
    session.add(project)
    session.flush()
    return project


def add(session: Session, project: Project, *texts: str) -> list[str]:
    added = add_prompts(session, project, map(user_message, texts), kind=PromptKind.PLAIN)
    return [placed.outcome for placed in added.placed]


def stored(session: Session) -> list[str]:
    return [prompt.messages[0]["content"] for prompt in session.scalars(select(Prompt).order_by(Prompt.id))]


def test_an_exact_duplicate_is_skipped_and_points_to_the_first(session: Session, garden: Project) -> None:
    assert add(session, garden, "Name a tree.", "Name a tree.") == ["added", "duplicate"]
    assert add(session, garden, "Name a tree.", "Name a bird.") == ["duplicate", "added"]
    assert stored(session) == ["Name a tree.", "Name a bird."]


def test_a_near_duplicate_is_skipped_and_reported(session: Session, garden: Project) -> None:
    assert add(session, garden, "Name a tree.", "name  a tree!") == ["added", "near_duplicate"]
    assert add(session, garden, "NAME A TREE", "name a tree or two") == ["near_duplicate", "added"]
    assert stored(session) == ["Name a tree.", "name a tree or two"]


def test_prompts_that_differ_in_more_than_spelling_are_no_near_duplicates(session: Session, garden: Project) -> None:
    assert add(session, garden, "What is 2+2?", "What is 2-2?", "?", "!") == ["added"] * 4


def test_a_ranking_imports_near_duplicates_are_kept_and_join_the_group(session: Session, garden: Project) -> None:
    texts = ["Name a tree.", "name a tree"]
    placed = place_prompts(session, garden, map(user_message, texts), kind=PromptKind.IMPORTED)
    assert placed.num_added == 2
    assert len(set(session.scalars(select(Prompt.group_key)))) == 1


def test_every_prompt_of_a_conversation_is_in_one_group(session: Session, garden: Project) -> None:
    first = user_message("What should I plant?")
    longer = [*first, {"role": "assistant", "content": "Beans."}, {"role": "user", "content": "And where?"}]
    instructed = [{"role": "system", "content": "Be short."}, *first]
    add_prompts(session, garden, [first, longer, instructed], kind=PromptKind.CONVERSATION)
    assert session.scalar(select(func.count(Prompt.id))) == 3
    assert len(set(session.scalars(select(Prompt.group_key)))) == 1


def test_groups_fall_on_the_sides_in_the_projects_shares(session: Session, garden: Project) -> None:
    add(session, garden, *(f"Tell me of number {number}" for number in range(2000)))
    splits = Counter(session.scalars(select(Prompt.split)))
    uses = Counter(session.scalars(select(Prompt.use)))
    # Expected 1300, 200 of 2000 and 400, 800; four standard deviations of a binomial are at most 90.
    assert abs(splits[Split.TRAIN] - 1300) < 90
    assert abs(splits[Split.VALIDATION] - 200) < 60
    assert abs(uses[Use.DEMONSTRATE] - 400) < 75
    assert abs(uses[Use.RANK] - 800) < 90


def test_a_group_stays_on_its_side_when_the_shares_change(session: Session, garden: Project) -> None:
    add(session, garden, "What should I plant?")
    before = session.scalars(select(Prompt.split)).one()
    garden.train_share, garden.validation_share = (0.001, 0.001) if before is Split.TRAIN else (0.99, 0.001)
    longer = [
        {"role": "user", "content": "What should I plant?"},
        {"role": "assistant", "content": "Beans."},
        {"role": "user", "content": "And where?"},
    ]
    add_prompts(session, garden, [longer], kind=PromptKind.CONVERSATION)
    assert set(session.scalars(select(Prompt.split))) == {before}


def test_projects_do_not_share_prompts(session: Session, garden: Project) -> None:
    other = Project(slug="kitchen", name="Kitchen", flags=[])
    session.add(other)
    session.flush()
    assert add(session, garden, "Name a tree.") == add(session, other, "Name a tree.") == ["added"]


def test_a_prompt_set_aside_keeps_its_first_reason(session: Session, garden: Project) -> None:
    add(session, garden, "Name a tree.")
    prompt = session.scalars(select(Prompt)).one()
    set_aside(session, prompt, "only 2 distinct completions", NOW)
    set_aside(session, prompt, "another reason", NOW)
    assert (prompt.set_aside_at, prompt.set_aside_reason) == (NOW, "only 2 distinct completions")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "not a list"),
        ("Hello", "not a list"),
        (["Hello"], "turn 1 is not an object"),
        ([{"role": "user", "content": "  \n"}], "empty"),
        ([{"role": "narrator", "content": "Hello"}], "'narrator'"),
        ([{"role": "user"}], "turn 1 has no text"),
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "not the user's"),
        ([{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be kind"}], "system turn"),
    ],
)
def test_what_no_policy_could_answer_is_refused_with_the_reason(turns: object, reason: str) -> None:
    with pytest.raises(BadPrompt, match=reason):
        checked_prompt(turns)


def test_other_names_for_roles_and_texts_become_ours() -> None:
    turns = [{"role": "prompter", "text": "Hi"}, {"from": "gpt", "value": "Hello"}, {"from": "human", "value": "Bye"}]
    assert checked_prompt(turns) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]


def test_text_that_postgres_cannot_hold_is_replaced(session: Session, garden: Project) -> None:
    assert storable("a\0b\ud800c é") == "a\ufffdb\ufffdc é"
    assert add(session, garden, "a\0b\ud800c") == ["added"]
