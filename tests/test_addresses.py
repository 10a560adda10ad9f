"""Nothing of a password is shown, whatever characters it has and wherever it stands."""

from __future__ import annotations

import string
from unicodedata import category
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from yarl import URL

from flowkit.addresses import flaw, mask, scrub, without_query
from flowkit.amqp import Address
from flowkit.broker.address import check, encode
from flowkit.errors import UsageError

many = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
CANARY = "k4n4ri3nv0g3l"
ANY = st.text(st.characters(codec=None), max_size=6)
MARKS = st.text("/?#[]@:%&=; \\\n\t\"'0aZ\u00e9", max_size=6)
AROUND = st.one_of(ANY, MARKS)
SCHEMES = st.sampled_from(["amqp", "amqps", "postgresql", "postgres", "http"])
HOSTS = st.sampled_from(["h", "db.example.org:5432", "[::1]:5672", "127.0.0.1", "", "a:1,b:2"])
PATHS = st.sampled_from(["", "/", "/db", "/%2F", "/a/b"])
QUERIES = st.sampled_from(["", "?sslmode=require", "?heartbeat=5&x=1", "#x"])


@many
@given(SCHEMES, AROUND, AROUND, AROUND, HOSTS, PATHS, QUERIES)
@example("postgresql", "u", "?password=", "", "h", "/db", "")
@example("amqp", "u", "12/", "@x", "h", "/", "")
def test_no_password_of_a_login_is_shown(scheme, user, before, after, host, path, query):
    shown = mask(f"{scheme}://{user}:{before}{CANARY}{after}@{host}{path}{query}")
    assert CANARY not in shown
    assert len(shown.splitlines()) == 1
    assert mask(shown) == shown


@many
@given(SCHEMES, HOSTS, PATHS, st.sampled_from(["?", "?sslmode=require&", "?password=x&", "?sslmode="]), AROUND, AROUND)
@example("postgresql", "h", "", "?", "password=a@", "")
def test_no_value_of_a_query_is_shown(scheme, host, path, query, before, after):
    for name in ("password", "passfile", "sslpassword", "anything", "PASSWORD"):
        shown = mask(f"{scheme}://{host}{path}{query}{name}={before}{CANARY}{after}")
        assert CANARY not in shown
        assert mask(shown) == shown


@many
@given(AROUND, AROUND)
def test_what_is_no_address_is_not_shown(before, after):
    if "://" not in before:
        assert CANARY not in mask(f"{before}:{CANARY}{after}".removeprefix("memory:"))
        assert CANARY not in mask(f"{before}{CANARY}{after}")


@many
@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(string.ascii_lowercase, min_size=1))
def test_encoded_logins_leave_all_else_to_be_seen(password, user):
    assert mask(f"amqp://{user}:{quote(password, safe='')}@rabbit:5671/prod") == f"amqp://{user}:***@rabbit:5671/prod"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:canary@h/", "amqp://u:***@h/"),
        ("amqp://u:can@ary@h/", "amqp://u:***@h/"),
        ("amqp://u@h/", "amqp://u@h/"),
        ("amqp://h", "amqp://h"),
        ("amqp://[::1]:5672/%2F?heartbeat=5", "amqp://[::1]:5672/%2F?heartbeat=5"),
        ("amqp://u:canary", "amqp://***"),
        ("amqp://u:can/ary", "amqp://***"),
        ("amqp://u:can[ary@h/", "amqp://u:***@h/"),
        ("amqps://h/?cafile=/etc/ca.pem", "amqps://h/?cafile=***"),
        ("postgresql://u:can/ary@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:can#ary@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:can?ary@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:can?ary=@h/db", "postgresql://***"),
        ("postgresql://u@h/db?password=canary&sslmode=require", "postgresql://u@h/db?password=***&sslmode=require"),
        ("postgresql://u@h/db?password=can@ary", "postgresql://***"),
        ("postgresql:///db?host=/tmp", "postgresql:///db?***"),
        ("host=h password=canary", "***"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("sqlite:////home/a@b/c:d.db", "sqlite:////home/a@b/c:d.db"),
        ("sqlite:///a.db\n", "sqlite:///a.db\N{REPLACEMENT CHARACTER}"),
        ("sqlite:///a.db?key=canary", "sqlite:///a.db?***"),
        ("sqlite://", "sqlite://"),
        ("memory:name", "memory:name"),
    ],
)
def test_what_is_shown(url, shown):
    assert mask(url) == shown
    assert without_query(url) == shown.partition("?")[0]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('could not translate host name "n4ry@h" to address', 'could not translate host name "***" to address'),
        ("failed to resolve host 'n4ry@h': unknown", "failed to resolve host '***': unknown"),
        ('invalid percent-encoded token: "ca@n4ry"', 'invalid percent-encoded token: "***"'),
        ('password authentication failed for user "u"', 'password authentication failed for user "u"'),
        ('role "root" does not exist', 'role "root" does not exist'),
        ('in URI: "postgresql://u:ca%40n4ry@h/db"', 'in URI: "postgresql://u:***@h/db"'),
    ],
)
def test_words_of_a_library_are_scrubbed(text, left):
    assert scrub(text, "postgresql://u:ca%40n4ry@h/db") == left


@many
@given(AROUND, AROUND, st.sampled_from(["h", "h:5672", "[::1]:5", "a_b"]), st.sampled_from(["", "/", "/v", "/%2F"]))
@example("u", "a&b=", "h", "/")
@example("u@x", ";=", "h", "/")
def test_a_store_knows_its_broker_by_the_same_text_as_ever(user, password, host, path):
    """Stores have it written down: another text would be another broker, and no coordinator would begin."""
    url = f"amqp://{user}:{password}@{host}{path}"
    try:
        check(url)
    except UsageError:
        return
    shown = url.partition("://")[2].rpartition("@")[0].partition(":")[0]
    unseen = any(category(each) in ("Cf", "Cs") for each in shown)
    assert without_query(url) == f"amqp://{'***' if unseen else shown}:***@{host}{path}"


@many
@given(AROUND, AROUND, st.sampled_from(["h", "h:5672", "[::1]:5", "a_b"]), st.sampled_from(["", "/", "/v", "/%2F"]))
@example("u\\", "p\\", "h", "/")
@example("u", "'\u00a8", "h", "")
@example("%", "%zz%41", "h", "")
def test_both_amqp_libraries_read_the_same_in_an_address(user, password, host, path):
    url = f"amqp://{user}:{password}@{host}{path}"
    try:
        check(url)
    except UsageError:
        return
    ours, theirs = Address.parse(url), URL(encode(url))
    assert (ours.user, ours.password, ours.host) == (theirs.user or "guest", theirs.password or "guest", theirs.host)
    assert Address.parse(encode(url)) == ours


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("sqlite:///a.db\n", "a newline"),
        ("sqlite:///a\0b.db", "a NUL"),
        ("amqp://u:p@h/\r", "a carriage return"),
        ("amqp://\u2028h", r"U\+2028"),
        ("\x7famqp://h", r"U\+007F"),
        (" amqp://h", "a blank"),
        ("sqlite:///a.db ", "a blank"),
    ],
)
def test_characters_that_no_address_has(address, why):
    with pytest.raises(AssertionError, match=why):
        assert flaw(address) is None, flaw(address)
    assert flaw("sqlite:///my files/\u00e9.db") is None
