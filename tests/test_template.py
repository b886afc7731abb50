"""A template that is spoilt is told, before anything is done with it."""

from __future__ import annotations

from copy import deepcopy
from importlib.resources import files
from typing import Any

import pytest
import yaml

from orchestrator.errors import TemplateError
from orchestrator.template import parse


@pytest.fixture
def raw() -> dict[str, Any]:
    text = (files("rclone_templates") / "filesystem.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_a_rule_for_an_option_that_is_none_is_refused(raw: dict[str, Any]) -> None:
    parse(deepcopy(raw))
    raw["rules"][0]["when"] = {"no_such_option": "."}
    with pytest.raises(TemplateError, match="no_such_option is no option"):
        parse(raw)
