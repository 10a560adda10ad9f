"""Addresses."""

from __future__ import annotations

import ssl

import pytest
import trustme

from flowkit.amqp import Address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://h", Address("h")),
        ("amqp://h/", Address("h")),
        ("amqp://u:p@h:1/v", Address("h", 1, "u", "p", "v")),
        ("amqp://u%40x:p%2Fq@h/a%2Fb", Address("h", 5672, "u@x", "p/q", "a/b")),
        ("amqp://h/%2F", Address("h")),
        ("amqp://[::1]:5/v?heartbeat=0", Address("::1", 5, vhost="v", heartbeat=0)),
        ("amqp://u@h", Address("h", 5672, "u")),
    ],
)
def test_an_address_in_its_parts(url, address):
    assert Address.parse(url) == address


@pytest.mark.parametrize(
    "url",
    ["http://h", "h:5672", "amqp://", "amqp://h:x", "amqp://h?heartbeat=soon", "amqp://h?heartbeat=65536", "amqp://h?heartbeat=-1",
     "amqps://h?no_verify_ssl=1"],
)  # fmt: skip
def test_what_is_no_address(url):
    with pytest.raises(ValueError, match=r".+"):
        Address.parse(url)


def test_a_password_is_not_shown():
    assert "s3cret" not in repr(Address.parse("amqp://u:s3cret@h"))


def test_tls_verifies_by_the_authority_that_is_named(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("client")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    address = Address.parse(f"amqps://h?cafile={tmp_path}/ca.pem&certfile={tmp_path}/client.pem")
    assert address.port == 5671
    assert address.tls.verify_mode == ssl.CERT_REQUIRED
    assert address.tls.check_hostname
    assert len(address.tls.get_ca_certs()) == 1
    with pytest.raises(FileNotFoundError):
        Address.parse("amqps://h?cafile=/nowhere.pem")
