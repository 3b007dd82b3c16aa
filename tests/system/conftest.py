"""Fixtures for whole-process tests. A test that takes `compare` runs its scenario through Envoy and through Postern, from one configuration, and
both must look the same from outside."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import peers  # noqa: E402


@pytest.fixture(scope="session")
def binary():
    path = peers.postern_binary()
    if not os.path.exists(path):
        pytest.fail(f"{path} is not there: build first, or set POSTERN")
    return path


@pytest.fixture
def proxies(tmp_path, binary):
    """proxies(kind, config, ...) starts a proxy that ends with the test."""
    started = []

    def start(kind, config, **kw):
        p = peers.Proxy(kind, config, tmp_path, **kw)
        started.append(p)
        return p
    yield start
    for p in started:
        p.stop()


@pytest.fixture(params=["envoy", "postern"])
def kind(request):
    """For tests that say what is right in words and check both."""
    if request.param == "envoy" and not peers.envoy_binary():
        pytest.skip("no Envoy to compare with (POSTERN_ENVOY)")
    return request.param


@pytest.fixture
def compare(tmp_path, binary):
    """compare(make_config, scenario): make_config(kind) gives a configuration, scenario(proxy) what was seen. Returns it; both must agree."""
    def run(make_config, scenario, **kw):
        seen = {}
        for k in ("envoy", "postern"):
            if k == "envoy" and not peers.envoy_binary():
                continue
            with peers.Proxy(k, make_config(k), tmp_path / k, **kw) as p:
                seen[k] = scenario(p)
        if "envoy" in seen:
            assert seen["postern"] == seen["envoy"], f"\nenvoy:   {seen['envoy']}\npostern: {seen['postern']}"
        return seen["postern"]
    return run
