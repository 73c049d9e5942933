"""Errors that name what is missing."""

import pytest

from ganrun.errors import UserError, require_extra


def test_an_extra_is_named_with_the_packages_of_it_that_are_missing():
    require_extra("this", "test", "pytest")
    with pytest.raises(UserError, match=r'^serving needs no_such_thing: pip install "ganrun\[serve\]"$'):
        require_extra("serving", "serve", "pytest", "no_such_thing")
