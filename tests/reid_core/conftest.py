from collections.abc import Iterator

import pytest


@pytest.fixture
def no_compiler() -> Iterator[None]:
    """torch finds no C++ compiler. By its own way of patching: after pytest's, its settings cannot be read again."""
    import torch._inductor.config as inductor

    with inductor.patch({"cpp.cxx": (None, "/nonexistent/c++"), "force_disable_caches": True}):
        yield
