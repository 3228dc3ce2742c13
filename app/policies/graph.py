"""The lineage of a project's policies as places on a page: a line a version, branches beside the line they leave.

Drawn like a commit graph, and not like a family tree: rounds restart from the SFT policy, so one version has many
children, and a tree of those is wider than any screen. A version that has one child hands its lane on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.policies.lineage import Line
from app.policies.models import PolicyState, PolicyVersion
from app.rounds.models import Round

LANE_WIDTH, ROW_HEIGHT = 26, 56  # pixels
MARGIN = 18  # left of the first lane
TEXT_WIDTH = 260  # beside the last lane
STEP = 12  # how far below its parent a branch turns aside


@dataclass(frozen=True)
class Node:
    """A version on the graph. x, y: of its mark's centre. on_path: it is current, or the current one came from it."""

    line: Line
    lane: int
    row: int
    on_path: bool

    @property
    def version(self) -> PolicyVersion:
        return self.line.version

    @property
    def x(self) -> int:
        return MARGIN + self.lane * LANE_WIDTH

    @property
    def y(self) -> int:
        return self.row * ROW_HEIGHT + ROW_HEIGHT // 2


@dataclass(frozen=True)
class Edge:
    """The round that made one version from another, as an SVG path."""

    parent: Node
    child: Node
    round: Round | None

    @property
    def on_path(self) -> bool:
        return self.child.on_path

    @property
    def path(self) -> str:
        """Down the parent's lane, then aside into the child's."""
        start, end = self.parent, self.child
        if start.x == end.x:
            return f"M {start.x} {start.y} V {end.y}"
        return f"M {start.x} {start.y} V {end.y - STEP} Q {start.x} {end.y} {start.x + STEP} {end.y} H {end.x}"


@dataclass(frozen=True)
class Drawing:
    """The graph and its size in pixels. text_x: where the words of every line begin."""

    nodes: list[Node]
    edges: list[Edge]
    width: int
    height: int
    text_x: int


def draw(versions: Sequence[PolicyVersion], lines: Sequence[Line]) -> Drawing:
    """versions: all of a project's.  lines: the same with their rounds and figures, in any order."""
    line_of = {line.version.id: line for line in lines}
    path = path_to_current(versions)
    nodes: dict[int, Node] = {}
    waiting = [(version, 0) for version in reversed(versions) if version.parent_id is None]
    while waiting:
        version, lane = waiting.pop()
        nodes[version.id] = Node(line_of[version.id], lane, len(nodes), version.id in path)
        children = [other for other in versions if other.parent_id == version.id]
        lane_of_children = lane if len(children) == 1 else lane + 1
        waiting += [(child, lane_of_children) for child in reversed(children)]
    edges = [
        Edge(nodes[node.version.parent_id], node, node.line.round)
        for node in nodes.values()
        if node.version.parent_id is not None
    ]
    text_x = MARGIN + (max(node.lane for node in nodes.values()) + 1) * LANE_WIDTH
    edges.sort(key=lambda edge: edge.on_path)  # the path to the current version lies over the others
    return Drawing(list(nodes.values()), edges, text_x + TEXT_WIDTH, len(nodes) * ROW_HEIGHT, text_x)


def path_to_current(versions: Sequence[PolicyVersion]) -> set[int]:
    """The ids of the current version and all that it came from."""
    by_id = {version.id: version for version in versions}
    path = set()
    step = next((version for version in versions if version.state == PolicyState.CURRENT), None)
    while step is not None:
        path.add(step.id)
        step = by_id.get(step.parent_id) if step.parent_id is not None else None
    return path
