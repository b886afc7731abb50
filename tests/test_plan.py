"""What the plan decides by itself, in the place of Django."""

from __future__ import annotations

from django.core.files.utils import validate_file_name
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.readback import PLAIN


@given(st.from_regex(PLAIN, fullmatch=True))
@example("a/b.jpg")
@example("2026/11/IMG_0001.JPG")
def test_django_refuses_no_plain_name(name: str) -> None:
    """So it need not be asked about each of a million."""
    assert validate_file_name(name, allow_relative_path=True) == name


@given(
    st.sampled_from(["..", ".", "", "a\\b", " "]), st.sampled_from(["{}", "a/{}", "{}/a", "/{}"])
)
def test_a_name_that_django_may_refuse_is_not_plain(part: str, place: str) -> None:
    assert not PLAIN.fullmatch(place.format(part))
