"""The quality pages and their API: who sees what, filters and order in the address, charts and their numbers."""

import csv
import io
import re
from datetime import timedelta
from xml.etree import ElementTree

import pytest

from app.db import clock
from app.people.models import Labeler
from tests.app.loop import make_labeler
from tests.app.quality.crowd import judge, labeler_of, make_crowd, new_slate
from tests.app.quality.known import make_known

QUALITY = "/projects/everyday/quality"
CHARTS = ("weeks", "chance-corrected", "people", "policies", "prompts", "position")


@pytest.fixture
def crowd(session, project, labeler, other_labeler, researcher) -> list[Labeler]:
    people = [labeler_of(session, project, each) for each in (labeler, other_labeler, researcher)]
    make_crowd(session, project, people)
    return people


def text_of(page) -> str:
    return " ".join(page.text.split())


def rows_of(page) -> list[str]:
    """The first words of each line of the table of people."""
    table = page.text.split('class="quality-people"')[1].split("</table>")[0]
    return [row.split("</a>")[0].rsplit(">", 1)[1] for row in table.split('<th scope="row">')[1:]]


@pytest.mark.parametrize(
    ("role", "status"), [("admin", 200), ("researcher", 200), ("labeler", 403), ("outsider", 404), ("visitor", 303)]
)
def test_the_quality_pages_are_for_researchers_and_admins(role, status, project, request):
    person = request.getfixturevalue(role)
    for path in ("", "/adjudication", "/charts/weeks.csv"):
        expected = 404 if status == 200 and path.startswith("/charts") else status  # there is nothing to draw yet
        assert person.get(QUALITY + path).status_code == expected


def test_the_page_of_an_empty_project_says_what_to_do(admin, project):
    assert "Agreement needs slates that two or more people rank" in text_of(admin.get(QUALITY))


def test_admins_read_names_and_researchers_pseudonyms(admin, researcher, crowd):
    theirs, ours = researcher.get(QUALITY), admin.get(QUALITY)
    assert "Lena Labeler" in ours.text
    assert "Lena Labeler" not in theirs.text
    assert crowd[0].pseudonym in theirs.text
    for path in ("/charts/people.csv", f"/people/{crowd[0].id}", "/charts/people.svg"):
        assert "Lena" in admin.get(QUALITY + path).text
        assert "Lena" not in researcher.get(QUALITY + path).text


def test_every_chart_has_its_picture_its_table_and_its_download(researcher, crowd):
    page = researcher.get(QUALITY).text
    for key in CHARTS:
        picture = researcher.get(f"{QUALITY}/charts/{key}.svg")
        assert ElementTree.fromstring(picture.content).tag.endswith("svg")
        assert "<script" not in picture.text
        assert picture.headers["content-security-policy"].startswith("default-src 'none'")
        assert f"/charts/{key}.svg?" in page
        assert f"/charts/{key}.csv?" in page
    rows = list(csv.reader(io.StringIO(researcher.get(f"{QUALITY}/charts/prompts.csv").text)))
    assert rows[0][:5] == [
        "Agreement by prompt kind",
        *(f"pair agreement{part}" for part in ("", " low", " high", " n")),
    ]
    assert [row[0] for row in rows[1:]] == ["imported", "plain"]
    value, low, high = (float(cell) for cell in rows[1][1:4])
    assert 0.5 < low < value < high < 1
    assert "chart_not_found" in researcher.get(f"{QUALITY}/charts/unknown.svg").text


def test_the_reference_lines_of_the_literature_are_on_the_page_and_in_the_chart(researcher, crowd):
    assert "63 % (HH-RLHF), 73 % (InstructGPT), 77 %" in text_of(researcher.get(QUALITY))
    assert "HH-RLHF 63%" in researcher.get(f"{QUALITY}/charts/weeks.svg").text


def test_a_page_and_its_charts_show_the_same_rankings(researcher, crowd, session, project):
    page = researcher.get(QUALITY).text
    address = page.split('src="/projects/everyday/quality/charts/weeks.svg')[1].split('"')[0].replace("&amp;", "&")
    before = researcher.get(f"{QUALITY}/charts/weeks.csv{address}").text
    slate = new_slate(session, project)
    for each, ranks in zip(crowd[:2], ([1, 2, 3, 4], [4, 3, 2, 1]), strict=True):
        judge(session, slate, each, ranks)
    session.commit()
    assert researcher.get(f"{QUALITY}/charts/weeks.csv{address}").text == before
    assert researcher.get(f"{QUALITY}/charts/weeks.csv").text != before


def test_filters_and_order_are_in_the_address(admin, crowd, session):
    assert rows_of(admin.get(QUALITY)) == ["Lena Labeler", "Otto Labeler", "Rosa Researcher"]
    by_pace = rows_of(admin.get(f"{QUALITY}?sort=pace"))
    assert by_pace == ["Rosa Researcher", "Otto Labeler", "Lena Labeler"]
    assert rows_of(admin.get(f"{QUALITY}?sort=-pace")) == by_pace[::-1]
    tomorrow = (clock(session) + timedelta(days=2)).date()
    assert "No ranking here yet" in admin.get(f"{QUALITY}?since={tomorrow}").text
    assert "No ranking here yet" not in admin.get(f"{QUALITY}?until={tomorrow}&prompt_kind=plain").text
    assert "No ranking here yet" in admin.get(f"{QUALITY}?prompt_kind=few_shot").text


@pytest.mark.parametrize("query", ["since=yesterday", "prompt_kind=x", "between=y", "sort=-z", "since=&until=&sort="])
def test_an_address_that_nobody_can_read_chooses_nothing(query, admin, crowd):
    assert rows_of(admin.get(f"{QUALITY}?{query}")) == ["Lena Labeler", "Otto Labeler", "Rosa Researcher"]


def test_a_name_that_is_a_formula_stays_a_text_in_the_download(admin, session, project, crowd):
    imported = make_labeler(session, project, "x")
    imported.pseudonym = "=cmd()"
    judge(session, new_slate(session, project), imported, [1, 2, 3, 4])
    session.commit()
    assert "\n'=cmd()," in admin.get(f"{QUALITY}/charts/people.csv").text.replace("\r", "")


def test_the_api_says_what_the_page_says(researcher, crowd):
    found = researcher.get("/api/v1/projects/everyday/quality").json()
    assert (found["num_rankings"], found["num_shared_slates"]) == (72, 24)
    between_labelers, _, between_researchers = found["overall"]
    assert 0.6 < between_labelers["agreement"]["pair_agreement"]["value"] < 1
    undefined = between_researchers["agreement"]["krippendorff_alpha"]
    assert undefined == {
        "value": None,
        "low": None,
        "high": None,
        "num": 0,
        "reason": "no slate was ranked by two of them",
    }


def test_a_person_of_another_project_is_not_found(admin, session, project):
    assert admin.get(f"{QUALITY}/people/999").status_code == 404
    assert admin.post(f"{QUALITY}/people/999", data={"step": "warn", "reason": "x"}).status_code == 404


# A labeler's own page


def test_the_own_page_counts_days_and_active_time(labeler, session, project):
    lena = labeler_of(session, project, labeler)
    now = clock(session)
    for days, active_s in ((0, 100), (0, 20), (3, 3600), (20, 60)):
        judge(
            session, new_slate(session, project), lena, [1, 2, 3, 4], at=now - timedelta(days=days), active_s=active_s
        )
    taken_back = judge(session, new_slate(session, project), lena, [1, 2, 3, 4], active_s=999)
    taken_back.retracted_at = now
    session.commit()
    page = text_of(labeler.get("/projects/everyday/mine"))
    assert "<dt>today</dt><dd>2</dd>" in page
    assert "<dt>in all</dt><dd>4</dd>" in page
    assert "1\u00a0h 03\u00a0min" in page.replace("&nbsp;", "\u00a0")  # 3,780 s
    assert page.count('<th scope="row"') == 14


def test_own_agreement_is_shown_when_enough_is_shared_and_the_project_says_so(labeler, session, project, crowd):
    page = labeler.get("/projects/everyday/mine").text
    assert "on 24 slates that others ranked too" in page
    project.shows_agreement = False
    session.commit()
    assert "agreement with others" not in labeler.get("/projects/everyday/mine").text


def test_own_agreement_waits_for_ten_shared_slates(labeler, session, project, other_labeler):
    lena, otto = (labeler_of(session, project, each) for each in (labeler, other_labeler))
    for _ in range(9):
        slate = new_slate(session, project)
        judge(session, slate, lena, [1, 2, 3, 4])
        judge(session, slate, otto, [1, 2, 3, 4])
    session.commit()
    assert "others have ranked fewer than 10 of your slates" in labeler.get("/projects/everyday/mine").text
    slate = new_slate(session, project)
    for each in (lena, otto):
        judge(session, slate, each, [1, 2, 3, 4])
    session.commit()
    assert "100\u00a0%" in labeler.get("/projects/everyday/mine").text


def test_nobody_but_members_has_a_page_of_their_own(outsider, visitor, project):
    assert outsider.get("/projects/everyday/mine").status_code == 404
    assert visitor.get("/projects/everyday/mine").status_code == 303


def test_a_reference_line_has_one_colour_in_all_charts(researcher, crowd):
    colours = set()
    for key, num_series in (("weeks", 1), ("people", 2), ("policies", 1)):  # the references come after the series
        drawn = researcher.get(f"{QUALITY}/charts/{key}.svg").text
        light, dark = re.findall(rf"\.color-{num_series},[^{{]*{{stroke:(#\w+)", drawn)[-2:]
        colours.add((light, dark))
    assert len(colours) == 1


def test_own_agreement_is_with_people_and_never_with_a_known_answer(
    labeler, other_labeler, researcher, session, project
):
    lena, otto = (labeler_of(session, project, each) for each in (labeler, other_labeler))
    for _ in range(10):
        source = new_slate(session, project)
        session.commit()
        gold = make_known(researcher, session, source)
        judge(session, gold, lena, [1, 2, 3, 4])  # as the researcher did
        slate = new_slate(session, project)
        judge(session, slate, lena, [1, 2, 3, 4])
        judge(session, slate, otto, [4, 3, 2, 1])
    session.commit()
    page = labeler.get("/projects/everyday/mine").text
    assert "on 10 slates that others ranked too" in page
    assert ">0\u00a0%" in page.replace("&nbsp;", "\u00a0")
