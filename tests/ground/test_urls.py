"""URLs: which hosts are this machine. How they are read and vetted is in test_fetch.py."""

from __future__ import annotations

import pytest

from lapilli.ground.urls import is_loopback, is_this_machine


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1", "::1%lo"])
def test_loopback_is_an_address_however_it_is_written(host: str) -> None:
    assert is_loopback(host)
    assert is_this_machine(host)


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "localhost.", "page.localhost"])
def test_names_that_mean_this_machine_are_no_addresses(host: str) -> None:
    assert is_this_machine(host)
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.evil.org", "notlocalhost", "[::1].evil"])
def test_others_are_elsewhere(host: str) -> None:
    assert not is_this_machine(host)
