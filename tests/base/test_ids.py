"""IDs (design section 5): what may be written, what it means, and how a wrong one is refused."""

import re
import string
import warnings

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jupyter_sandbox import ids
from jupyter_sandbox.errors import InvalidInput, SandboxWarning

LITERAL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.ASCII)
allowed = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=63)
anything = st.text(max_size=100) | allowed


def code_of(sandbox_id, **options):
    with pytest.raises(InvalidInput) as caught:
        ids.normalize(sandbox_id, **options)
    return caught.value.code


@given(anything)
def test_an_id_is_normalized_to_the_rule_or_refused_with_its_code(text):
    try:
        found = ids.normalize(text)
    except InvalidInput as problem:
        assert problem.code.startswith("INVALID_ID_")  # noqa: PT017 - either way is right, depending on the text
        assert (
            not LITERAL.fullmatch(text.lower()) or len(text) > 63 or text.lower() in ids.RESERVED or not text.isascii()
        )
    else:
        assert LITERAL.fullmatch(found)
        assert 1 <= len(found) <= 63
        assert found == text.lower()
        assert found not in ids.RESERVED


@given(allowed)
def test_normalizing_twice_is_normalizing_once(text):
    assume(not text.startswith("-") and not text.endswith("-") and text.lower() not in ids.RESERVED)
    once = ids.normalize(text)
    assert ids.normalize(once) == once
    assert ids.normalize(text.swapcase()) == once
    assert ids.fits_dns_label(once)


@given(allowed)
def test_without_normalization_case_is_kept_and_uppercase_warns(text):
    assume(not text.startswith("-") and not text.endswith("-") and text.lower() not in ids.RESERVED)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert ids.normalize(text, normalize_id=False) == text
    assert [warning.category for warning in caught] == ([] if text == text.lower() else [SandboxWarning])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "INVALID_ID_EMPTY"),
        ("a" * 64, "INVALID_ID_TOO_LONG"),
        ("-a", "INVALID_ID_HYPHEN"),
        ("a-", "INVALID_ID_HYPHEN"),
        ("-", "INVALID_ID_HYPHEN"),
        ("a b", "INVALID_ID_CHARACTER"),
        ("a\n", "INVALID_ID_CHARACTER"),
        ("a/b", "INVALID_ID_CHARACTER"),
        ("..", "INVALID_ID_CHARACTER"),
        ("\u212a", "INVALID_ID_CHARACTER"),  # KELVIN SIGN, which lowercases to k
        ("\u0131", "INVALID_ID_CHARACTER"),
        ("\u0663", "INVALID_ID_CHARACTER"),  # an Arabic digit
        ("user\0", "INVALID_ID_CHARACTER"),
        ("API", "INVALID_ID_RESERVED"),
        ("www", "INVALID_ID_RESERVED"),
        ("Root", "INVALID_ID_RESERVED"),
        ("system", "INVALID_ID_RESERVED"),
        ("admin", "INVALID_ID_RESERVED"),
        (None, "INVALID_ID_CHARACTER"),
        (b"a", "INVALID_ID_CHARACTER"),
    ],
)
@pytest.mark.parametrize("normalize_id", [True, False])
def test_every_broken_rule_has_its_own_code(text, code, normalize_id):
    assert code_of(text, normalize_id=normalize_id) == code


@given(st.text(min_size=1, max_size=300))
def test_a_refusal_names_the_id_and_stays_short(text):
    assume(not re.fullmatch(r"[A-Za-z0-9-]*", text))
    with pytest.raises(InvalidInput) as caught:
        ids.normalize(text)
    shown = text if len(text) <= 80 else text[:77] + "..."
    assert repr(shown) in str(caught.value)


def test_temporary_and_opaque_ids_are_valid_and_new():
    assert ids.normalize(ids.temporary()) != ids.temporary()
    assert re.fullmatch(r"[0-9a-f]{32}", ids.opaque())
    assert ids.opaque() != ids.opaque()


@pytest.mark.parametrize(("text", "fits"), [("a-1", True), ("A", False)])
def test_only_lowercase_fits_a_host_name(text, fits):
    assert ids.fits_dns_label(text) is fits
