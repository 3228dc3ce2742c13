"""A person takes away all that is kept about them, and nothing that is kept about others."""

import json

import pytest
from sqlalchemy.orm import Session

from app.privacy import own_data
from app.projects.models import Project
from app.prompts.models import Split
from tests.app.conftest import Person
from tests.app.loop import make_prompts, make_slate, rank
from tests.app.privacy.conftest import NOTE, Crowd, labeler_in

FILE, API = "/account/data/export", "/api/v1/me/data"


@pytest.mark.parametrize("address", [FILE, API])
def test_a_labeler_takes_away_everything_that_is_theirs(
    labeler: Person, session: Session, crowd: Crowd, elsewhere: Project, address: str
) -> None:
    labeler_in(session, labeler, elsewhere)
    session.commit()
    told = json.loads(labeler.get(address).text)
    account = labeler.account
    assert account is not None
    assert (told["account"]["name"], told["account"]["email"]) == (account.name, account.email)
    assert len(told["account"]["sessions"]) == 1
    assert told["account"]["guidelines_accepted"][0]["project"] == "everyday"
    everyday, other = told["projects"]
    assert (everyday["slug"], other["slug"], other["rankings"]) == ("everyday", "elsewhere", [])
    [ranking] = everyday["rankings"]
    assert (ranking["id"], ranking["note"]) == (str(crowd.hers.id), NOTE)
    assert [(each["completion"], each["rank"]) for each in ranking["completions"]] == [
        (f"Completion {position}", position + 1) for position in range(4)
    ]
    assert [each["text"] for each in everyday["demonstrations"]] == ["Dear landlord of Rosemary Lane"]
    assert everyday["pseudonym"] == crowd.lena.pseudonym


def test_what_others_gave_and_which_policy_wrote_what_is_not_in_it(
    labeler: Person, session: Session, crowd: Crowd
) -> None:
    file = labeler.get(FILE).text
    for secret in ("otto", crowd.otto.pseudonym, str(crowd.his.id), "policy", "seed", "temperature"):
        assert secret not in file.lower()


def test_many_rankings_are_read_in_pieces_each_once(
    labeler: Person, session: Session, project: Project, crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_data, "RANKINGS_A_PIECE", 2)
    for prompt in make_prompts(session, project, Split.TRAIN, 3):
        rank(session, make_slate(session, prompt), [1, 1, 2, 3], crowd.lena)
    session.commit()
    ids = [ranking["id"] for ranking in json.loads(labeler.get(FILE).text)["projects"][0]["rankings"]]
    assert (len(ids), len(set(ids))) == (4, 4)


def test_the_page_counts_what_was_given_and_the_file_is_for_whoever_is_signed_in(
    labeler: Person, outsider: Person, visitor: Person, crowd: Crowd
) -> None:
    page = labeler.get("/account/data").text
    assert "Everyday requests" in page
    assert "/account/data/export" in page
    assert json.loads(outsider.get(FILE).text)["projects"] == []
    assert (visitor.get(FILE).status_code, visitor.get(API).status_code) == (303, 401)
