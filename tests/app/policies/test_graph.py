"""The lineage as places on a page."""

from app.policies.graph import LANE_WIDTH, MARGIN, draw
from app.policies.lineage import Line
from app.policies.models import PolicyState, PolicyVersion


def version(number: int, parent: int | None, state: PolicyState = PolicyState.RETIRED) -> PolicyVersion:
    return PolicyVersion(id=number, number=number, parent_id=parent, state=state)


def drawn(*versions: PolicyVersion) -> dict[int, tuple[int, int]]:
    """version -> its lane and row."""
    drawing = draw(versions, [Line(each, None, {}, None) for each in versions])
    return {node.version.number: (node.lane, node.row) for node in drawing.nodes}


def test_a_version_with_one_child_hands_its_lane_on() -> None:
    assert drawn(version(1, None), version(2, 1), version(3, 2)) == {1: (0, 0), 2: (0, 1), 3: (0, 2)}


def test_branches_stand_beside_the_line_they_leave_each_with_its_own_descendants() -> None:
    places = drawn(version(1, None), version(2, 1), version(3, 2), version(4, 2), version(5, 3))
    assert places == {1: (0, 0), 2: (0, 1), 3: (1, 2), 5: (1, 3), 4: (1, 4)}


def test_forty_versions_of_one_sft_policy_need_two_lanes_and_fit_a_phone() -> None:
    versions = [version(1, None), version(2, 1), *(version(number, 2) for number in range(3, 41))]
    drawing = draw(versions, [Line(each, None, {}, None) for each in versions])
    assert {node.lane for node in drawing.nodes} == {0, 1}
    assert sorted(node.row for node in drawing.nodes) == list(range(40))
    assert drawing.width <= 360 - 2 * 12  # a phone's width without the page's margins


def test_the_path_to_the_current_version_is_marked_and_lies_on_top() -> None:
    versions = [version(1, None), version(2, 1, PolicyState.CURRENT), version(3, 1)]
    drawing = draw(versions, [Line(each, None, {}, None) for each in versions])
    assert {node.version.number for node in drawing.nodes if node.on_path} == {1, 2}
    assert [edge.child.version.number for edge in drawing.edges] == [3, 2]


def test_an_edge_runs_from_the_parents_mark_to_the_childs() -> None:
    versions = [version(1, None), version(2, 1), version(3, 1)]
    drawing = draw(versions, [Line(each, None, {}, None) for each in versions])
    (edge,) = (edge for edge in drawing.edges if edge.child.version.number == 3)
    assert edge.path.startswith(f"M {MARGIN} {edge.parent.y} V ")
    assert edge.path.endswith(f"H {MARGIN + LANE_WIDTH}")
