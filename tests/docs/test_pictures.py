"""The pictures are few, small, and each there for both themes."""

from tests.docs.pages import ROOT, links_of, pages

FOLDER = ROOT / "docs" / "pictures"


def test_each_picture_has_both_themes_and_is_small() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.glob("*.png")}
    names = {name.removesuffix("-light.png") for name in files if name.endswith("-light.png")}
    assert set(files) == {f"{name}-{theme}.png" for name in names for theme in ("light", "dark")}
    assert max(files.values()) <= 150_000


def test_each_picture_is_shown_somewhere() -> None:
    shown = {link.address.rpartition("/")[2] for page in pages() for link in links_of(page)}
    assert {path.name for path in FOLDER.glob("*.png")} <= shown
