"""Promise 7: each option is translated, or has no effect, or is refused; none is ignored."""

from __future__ import annotations

import inspect
import json
import os
import re
import string
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import takewhile
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from django.conf import settings as django_settings
from django.utils.module_loading import import_string
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import rclone
from orchestrator.envfile import Settings
from orchestrator.errors import AccessRefusedError, ConfigurationError, OrchestratorError
from orchestrator.fates import describe
from orchestrator.remote import Remote, translate
from orchestrator.storage import Upload, load
from orchestrator.template import Fields, Flag, Ignore, Key, Option, Refuse, Template, load_all
from orchestrator.transforms import TRANSFORMS
from tests.django_side import configure
from tests.site import S3

CLASSES = {dotted: t for t in load_all() for dotted in t.classes}
TEMPLATES = {template.family: template for template in load_all()}
# rclone calls these sensitive because they tell who somebody is; they let nobody in.
NAMES_ONLY = frozenset(
    {
        *("host", "user", "account", "tenant", "client_id", "username", "project_number"),
        *("sse_kms_key_id", "sse_customer_key_md5", "user_project", "impersonate"),
    }
)


@pytest.fixture(autouse=True)
def _django() -> None:
    configure(os.environ)
    assert django_settings.configured


def say(*args: str) -> str:
    done = subprocess.run([rclone.find(), *args], capture_output=True, check=True, text=True)
    return done.stdout


@cache
def rclone_options(backend: str) -> Mapping[str, Mapping[str, Any]]:
    providers = json.loads(say("config", "providers"))
    found = {p["Name"]: {o["Name"]: o for o in p["Options"]} for p in providers}
    return {"type": {}, "description": {}, **found[backend]}


def each(options: Mapping[str, Option]) -> Iterator[tuple[str, Option]]:
    """Yield each option, going into dictionaries."""
    for name, option in options.items():
        yield name, option
        for fate in option.fates:
            if isinstance(fate, Fields):
                yield from each(fate.options)


def every(template: Template) -> Iterator[tuple[str, Option]]:
    yield from each({**template.options, **template.derived})
    yield from each(template.parameters)


def options_of(dotted: str) -> set[str]:
    """Ask the class itself which options it has."""
    cls = import_string(dotted)
    if hasattr(cls, "get_default_settings"):
        return set(cls.__new__(cls).get_default_settings())
    return set(inspect.signature(cls.__init__).parameters) - {"self"}


@pytest.mark.parametrize("dotted", CLASSES)
def test_the_template_has_the_options_of_the_class_and_no_other(dotted: str) -> None:
    assert CLASSES[dotted].options.keys() == options_of(dotted)


def test_the_parameters_of_an_s3_upload_are_those_that_boto3_allows() -> None:
    from boto3.s3.transfer import S3Transfer

    assert TEMPLATES["s3"].parameters.keys() == set(S3Transfer.ALLOWED_UPLOAD_ARGS)


@pytest.mark.parametrize("family", TEMPLATES)
def test_each_key_of_the_remote_is_known_to_rclone_and_secret_where_it_says_so(family: str) -> None:
    template = TEMPLATES[family]
    known = rclone_options(template.rclone_type)
    assert template.config.keys() <= known.keys()
    for rule in template.rules:
        backend = rule.config.get("type", template.rclone_type)
        assert rule.config.keys() <= rclone_options(backend).keys(), rule.name
    for name, option in every(template):
        for fate in option.fates:
            if isinstance(fate, Key):
                about = known[fate.name]
                closed = about.get("Sensitive") or about.get("IsPassword")
                assert option.secret or not closed or fate.name in NAMES_ONLY, name
                assert fate.obscure == bool(about.get("IsPassword")), name


@pytest.mark.parametrize("family", TEMPLATES)
def test_each_flag_is_known_to_rclone(family: str) -> None:
    template = TEMPLATES[family]
    used = {f.name for _, o in every(template) for f in o.fates if isinstance(f, Flag)}
    used |= template.flags.keys() | {name for rule in template.rules for name in rule.flags}
    said = subprocess.run(
        [rclone.find(), "help", "flags"], capture_output=True, text=True, check=True
    )
    words = {word.partition("=")[0] for word in said.stdout.split() if word.startswith("--")}
    assert {f"--{name}" for name in used} <= words


def test_each_transform_exists_and_is_used() -> None:
    def used(node: Any) -> Iterator[str]:
        match node:
            case {"as": str(name)} | {"fold": str(name)}:
                yield name
        if isinstance(node, Mapping | list):
            for inner in node.values() if isinstance(node, Mapping) else node:
                yield from used(inner)

    folder = files("rclone_templates")
    documents = [p.read_text() for p in folder.iterdir() if p.name.endswith(".yaml")]
    found = {name for text in documents for name in used(yaml.safe_load(text))}
    assert found | {"text"} == TRANSFORMS.keys()


@pytest.mark.parametrize("dotted", CLASSES)
def test_each_option_is_told_with_what_becomes_of_it(dotted: str) -> None:
    from orchestrator.fates import options

    told = takewhile(lambda line: not line.startswith("what an object"), options(dotted))
    lines = {line.split()[0]: line for line in told if re.match("  [^ ]", line)}
    assert lines.keys() >= CLASSES[dotted].options.keys()
    for name, option in CLASSES[dotted].options.items():
        for fate in option.fates:
            assert isinstance(fate, Fields) or describe(fate) in lines[name]
            if isinstance(fate, Ignore | Refuse):
                assert len(fate.reason) > 10
                assert fate.reason in lines[name]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
WORDS = st.text(string.ascii_letters + string.digits + "-._/ ", min_size=1, max_size=30)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**40),
    st.floats(),
    TEXTS,
    st.lists(TEXTS, max_size=2),
    st.dictionaries(TEXTS, TEXTS, max_size=2),
)
URLS = st.sampled_from(
    [
        *("https://s3.example.org", "http://127.0.0.1:9000/x", "127.0.0.1:1", "ftp://x", ""),
        *(
            "https://s3.eu-west-1.amazonaws.com",
            "https://0a.r2.cloudflarestorage.com",
            "http://[::1",
        ),
    ]
)
LIKELY: Mapping[str, st.SearchStrategy[Any]] = {
    "access_key": WORDS,
    "secret_key": WORDS,
    "security_token": st.none() | WORDS,
    "bucket_name": st.sampled_from(["media", "my.bucket", "with/slash", "Ünicode", ""]),
    "endpoint_url": st.none() | URLS,
    "region_name": st.none() | st.sampled_from(["eu-west-1", "auto", "a b"]),
    "location": st.sampled_from(["", "media", "a/b/", "/root", "../up", "ü b"]),
    "addressing_style": st.sampled_from(["path", "virtual", "auto", "other"]),
    "signature_version": st.sampled_from(["s3v4", "s3", "unsigned", "v9"]),
    "use_ssl": st.booleans(),
    "verify": st.sampled_from([None, True, False, "/nowhere/ca.pem"]),
    "proxies": st.none() | st.fixed_dictionaries({"http": URLS}, optional={"https": URLS}),
    "default_acl": st.sampled_from([None, "private", "public-read", "nonsense"]),
    "object_parameters": st.dictionaries(
        st.sampled_from([*TEMPLATES["s3"].parameters, "Unheard"]), WORDS | ODD, max_size=3
    ),
    "gzip": st.booleans(),
    "gzip_content_types": st.lists(WORDS, max_size=2),
    "session_profile": st.none() | WORDS,
    "client_config": st.just({"region_name": "x"}),
    "transfer_config": st.just({"multipart_chunksize": 1}),
    "cloudfront_key_id": WORDS,
    "cloudfront_key": WORDS,
}
NEEDED = {"access_key": "AKIDAKIDAKID", "secret_key": "s3cr3ts3cr3t", "bucket_name": "media"}


@st.composite
def option_sets(draw: st.DrawFn) -> dict[str, Any]:
    """Draw options of S3Storage: mostly sound ones, with one or two that are not."""
    names = draw(st.sets(st.sampled_from(sorted(TEMPLATES["s3"].options)), max_size=4))
    likely = {name: draw(LIKELY.get(name, st.booleans() | WORDS)) for name in names}
    odd = draw(st.sets(st.sampled_from(sorted(TEMPLATES["s3"].options)), max_size=1))
    return {**NEEDED, **likely, **{name: draw(ODD) for name in odd}}


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(option_sets())
def test_any_options_make_a_remote_that_rclone_takes_or_are_refused_by_name(
    options: dict[str, Any],
) -> None:
    asked = Settings(
        storage_class=S3,
        options=MappingProxyType(options),
        variables=MappingProxyType({}),
        disputed=MappingProxyType({}),
        source=None,
    )
    found = outcome(asked)
    if isinstance(found, Remote):
        assert_accepted(found)
    else:
        assert any(name in str(found) for name in options), found
        assert all(problem.tip for problem in found.problems)


def outcome(asked: Settings) -> Remote | OrchestratorError:
    try:
        return translate(load(asked))
    except (ConfigurationError, AccessRefusedError) as error:
        return error


def assert_accepted(remote: Remote) -> None:
    """Let rclone read the remote; it asks no server for this."""
    done = subprocess.run(
        [rclone.find(), "--config=", "backend", "features", remote.root],
        env={"PATH": os.environ["PATH"], **remote.environment(Upload(), {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stderr, remote.masked())
