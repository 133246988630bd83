"""JSON values for Hypothesis."""

from hypothesis import strategies as st

json_leaves = st.none() | st.booleans() | st.integers() | st.integers(-2, 2**64) | st.floats() | st.text()

json_values = st.recursive(json_leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
